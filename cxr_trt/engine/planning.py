"""What has to be measured before a network can run in float16 or int8, and what follows from it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from cxr_trt.engine.calibration_images import CalibrationImages
from cxr_trt.errors import GraphError
from cxr_trt.export.graph_file import GraphInfo
from cxr_trt.export.half import in_network, layer_of
from cxr_trt.export.int8_calibration import Int8Calibration, threshold, unit_of, weights_hash
from cxr_trt.export.plan import Plan
from cxr_trt.export.ranges import Images, measure_ranges
from cxr_trt.export.rewrites import Rewrites, holds_network, read_network
from cxr_trt.export.scoring_graph import scoring_graph
from cxr_trt.export.sensitivity import scan
from cxr_trt.precision import CalibrationMethod

LARGEST_HALF = float(np.finfo(np.float16).max)
HEADROOM = 8  # times the largest activation seen must fit into float16
SCANNED = 8  # images that the sensitivity is measured on
TOLERATED = 0.02  # error of a unit in int8, see `scan`; with a larger one it stays floating point
FLOATING = ("features.conv0", "transfer.conv")  # the first and the last convolution are never quantized

Report = Callable[[str, float], None]


def plan_half(model: onnx.ModelProto, info: GraphInfo, images: Images, report: Report) -> Plan:
    """Measure which layers float16 cannot hold, on uint8 [N, 1, size, size].

    Raises GraphError if the graph has another network inside.
    """
    graph = _small_graph(model, info)
    largest = measure_ranges(graph, images, (), lambda fraction: report("measure ranges", fraction)).largest
    headroom: dict[str, float] = {}
    for node in filter(lambda node: in_network(node.name), graph.graph.node):
        seen = max(largest.get(name, 0.0) for name in (*node.input, *node.output))
        layer = layer_of(node.name)
        headroom[layer] = min(headroom.get(layer, np.inf), LARGEST_HALF / seen if seen else np.inf)
    float32 = tuple(layer for layer, room in headroom.items() if room < HEADROOM)
    return Plan("fp16", float32, headroom)


def plan_int8(
    model: onnx.ModelProto, info: GraphInfo, images: CalibrationImages, method: CalibrationMethod, report: Report
) -> Plan:
    """Calibrate: measure activations, choose thresholds, and leave out the layers that int8 costs most.

    Raises GraphError if the graph has another network inside.
    """
    graph = _small_graph(model, info)
    inputs = {
        node.name: node.input[0] for node in graph.graph.node if node.op_type == "Conv" and node.name not in FLOATING
    }
    ranges = measure_ranges(
        graph, images.pixels, tuple(inputs.values()), lambda fraction: report("measure ranges", fraction)
    )
    thresholds = {layer: threshold(ranges.histograms[name], method) for layer, name in inputs.items()}
    some = images.pixels[:SCANNED]
    sensitivity = scan(graph, thresholds, some, lambda fraction: report("scan layers", fraction))
    kept = {layer: value for layer, value in thresholds.items() if sensitivity[unit_of(layer)] <= TOLERATED}
    calibration = Int8Calibration(
        weights_hash(model), len(images.pixels), images.sha256, images.seed, method, kept, sensitivity
    )
    half = plan_half(model, info, some, report)
    return replace(half, precision="int8", calibration=calibration)


def _small_graph(model: onnx.ModelProto, info: GraphInfo) -> onnx.ModelProto:
    """The network on the centre crop alone, where measuring is ten times faster than on ten crops."""
    if not holds_network(model):
        raise GraphError("the graph holds another network, or is quantized already; only --precision fp32 can run it")
    weights, settings = read_network(model, info)
    rewrites = Rewrites(share_crops=False, affine_norms=True)
    center = replace(info.spec, views="center")
    return scoring_graph(weights, settings, center, {}, class_maps=False, rewrites=rewrites)
