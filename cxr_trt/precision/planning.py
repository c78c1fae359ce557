"""Measuring what must be known before a network can run in float16 or int8, and making the precision plan from it."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx

from cxr_trt.errors import GraphError, UsageError
from cxr_trt.export.graph_building import build_graph
from cxr_trt.export.network_graph import FLOAT32_PART, build_network_graph, needed_nodes
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision import CalibrationMethod, Precision
from cxr_trt.precision.calibration_images import CalibrationImages
from cxr_trt.precision.float16 import in_network, layer_of, with_graph
from cxr_trt.precision.int8 import quantizable, quantize
from cxr_trt.precision.int8_calibration import Int8Calibration, choose_clipping, unit_of
from cxr_trt.precision.int8_features import joined_features
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.precision.ranges import Images, measure_ranges
from cxr_trt.precision.sensitivity import scan_kinds, scan_sensitivity
from cxr_trt.progress import ProgressCallback
from cxr_trt.views import ViewSet

MAX_FLOAT16 = float(np.finfo(np.float16).max)
MIN_HEADROOM = 8  # float16 must hold the largest activation seen, times this
MAX_SCANNED_IMAGES = 8  # the sensitivity is measured on at most this many images
MAX_UNIT_ERROR = 0.02  # see `scan_sensitivity`; a unit whose int8 error is larger stays floating point
MAX_KIND_ERROR = 0.01  # see `scan_kinds`; a kind of operator whose float16 error is larger stays float32


def plan_precision(
    precision: Precision,
    graph: ScoringGraph,
    previous: PrecisionPlan,
    images: CalibrationImages | None,
    method: CalibrationMethod,
    on_progress: ProgressCallback,
) -> PrecisionPlan:
    """The plan for a precision: the one that came with the graph if it fits, otherwise a new one.

    Args:
        precision: the precision to plan for.
        graph: the scoring graph.
        previous: the plan that came with the graph; used again if it has the same precision and no images are given.
        images: X-rays to measure on. int8 needs them; float16 otherwise measures on built-in pictures.
        method: how int8 thresholds are chosen.
        on_progress: called with phase and fraction done.

    Raises:
        UsageError: int8 without images.
        BundleError: the previous plan was made for other weights.
        GraphError: the network is already quantized or float16.
    """
    if precision in ("fp32", "tf32", "bf16"):  # the backend rounds to TF32 or bfloat16, whose range is that of float32
        return PrecisionPlan(precision)
    if precision == previous.precision and images is None:
        previous.check_weights(graph)
        return previous
    if precision == "fp16":
        pixels = check_pictures(graph.spec.image_size) if images is None else images.pixels
        return plan_float16(graph, pixels, on_progress)
    if images is None:
        raise UsageError(
            "int8 must be calibrated on real X-rays: name a folder of them with --calibrate, but none of a test set"
        )
    return plan_int8(graph, images, method, on_progress)


def has_fixed_precision(graph: ScoringGraph) -> bool:
    """Whether the network stays in the types that it has: no plan can be made for fp16 or int8."""
    network = graph.network_graph
    return not graph.holds_network if network is None else network.is_quantized or network.is_float16


def plan_float16(graph: ScoringGraph, images: Images, on_progress: ProgressCallback) -> PrecisionPlan:
    """Measure which layers have activations that are too large for float16, on images uint8 [N, 1, height, width].

    In a network of another kind, what is float32 besides is measured by kind of operator.

    Raises GraphError if the network is already quantized or float16.
    """
    model = _center_crop_model(graph)
    largest = measure_ranges(model, images, (), lambda fraction: on_progress("measure ranges", fraction)).largest
    headroom: dict[str, float] = {}
    for node in filter(lambda node: in_network(node.name), model.graph.node):
        seen = max(largest.get(name, 0.0) for name in (*node.input, *node.output))
        layer = layer_of(node.name)
        headroom[layer] = min(headroom.get(layer, np.inf), MAX_FLOAT16 / seen if seen else np.inf)
    float32 = [layer for layer, times in headroom.items() if times < MIN_HEADROOM]
    if graph.network_graph is not None:
        errors = scan_kinds(model, images[:MAX_SCANNED_IMAGES], lambda done: on_progress("scan kinds of layers", done))
        sensitive = {kind for kind, error in errors.items() if not error <= MAX_KIND_ERROR}
        float32 += [
            layer_of(node.name)
            for node in model.graph.node
            if in_network(node.name) and node.op_type in sensitive and layer_of(node.name) not in float32
        ]
    return PrecisionPlan("fp16", tuple(float32), headroom)


def plan_int8(
    graph: ScoringGraph, images: CalibrationImages, method: CalibrationMethod, on_progress: ProgressCallback
) -> PrecisionPlan:
    """Calibrate: measure activations, choose thresholds, and leave out the layers that int8 harms most.

    Raises GraphError if the network is already quantized or float16, or has too few layers for int8.
    """
    model = _center_crop_model(graph)
    inner = quantizable(model)[1:-1]  # the first and the last matter most and take little time
    if not inner:
        raise GraphError("the network has no convolutions or matrix products between its first and its last; use fp32")
    inputs = {layer_of(node.name): node.input[0] for node in inner}
    ranges = measure_ranges(
        model,
        images.pixels,
        tuple(inputs.values()),
        lambda fraction: on_progress("measure ranges", fraction),
        joined_features(model),
    )
    features = {
        layer_of(name): largest.tolist() for name, largest in ranges.channels.items() if np.isfinite(largest).all()
    }
    thresholds = {layer: choose_clipping(ranges.histograms[name], method) for layer, name in inputs.items()}
    if second := _layers_after_float32(model, inputs):  # they see what the quantized layers before them choose
        names = {layer: inputs[layer] for layer in second}
        chosen = measure_ranges(
            quantize(model, {layer: value for layer, value in thresholds.items() if layer not in names}),
            images.pixels,
            tuple(names.values()),
            lambda fraction: on_progress("measure ranges of the second pass", fraction),
        )
        thresholds |= {layer: choose_clipping(chosen.histograms[name], method) for layer, name in names.items()}
    scanned = images.pixels[:MAX_SCANNED_IMAGES]
    sensitivity = scan_sensitivity(model, thresholds, scanned, lambda fraction: on_progress("scan layers", fraction))
    kept = {layer: value for layer, value in thresholds.items() if sensitivity[unit_of(layer)] <= MAX_UNIT_ERROR}
    calibration = Int8Calibration(
        graph.weights_sha256, len(images.pixels), images.sha256, images.seed, method, kept, sensitivity, features
    )
    return replace(plan_float16(graph, scanned, on_progress), precision="int8", calibration=calibration)


def _layers_after_float32(model: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """Those of the layers that follow a part of the network which is float32 in every precision."""
    names = [node.name for node in model.graph.node]
    last = max((i for i, name in enumerate(names) if f".{FLOAT32_PART}." in name), default=len(names))
    return [layer_of(name) for name in names[last:] if layer_of(name) in layers]


def _center_crop_model(graph: ScoringGraph) -> onnx.ModelProto:
    """The network on the centre crop alone: measuring is ten times faster than on ten crops."""
    if (network := graph.network_graph) is not None:
        if has_fixed_precision(graph):
            kind = "quantized" if network.is_quantized else "float16"
            raise GraphError(f"the network is {kind} already, and stays as it is; leave out --precision")
        views: ViewSet = graph.spec.views if graph.spec.crop_size == graph.spec.image_size else "center"
        spec = replace(graph.spec, views=views)
        model = build_network_graph(network, spec, {}, class_maps=False)
        nodes = needed_nodes(model.graph.node, {output.name for output in model.graph.output})
        return with_graph(model, nodes, {tensor.name: tensor for tensor in model.graph.initializer})
    if has_fixed_precision(graph):
        raise GraphError(
            "the graph holds another network, or is already quantized; it can only run with --precision fp32"
        )
    rewrites = Rewrites(share_crops=False, affine_norms=True)
    center = replace(graph.spec, views="center")
    return build_graph(*graph.network(), center, {}, class_maps=False, rewrites=rewrites)
