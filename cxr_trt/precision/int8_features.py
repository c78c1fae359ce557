"""A rewrite for CPUs: the features that dense blocks join are kept in int8, with one scale per channel.

Each dense layer reads what all layers before it made, so these features are copied and read many times; in int8 that
moves a quarter of the bytes. The norm behind a concatenation scales each channel anyway and takes in these scales. One
scale for all channels would lose too much: their magnitudes differ widely. Layers whose convolutions stay floating
point have their results rounded like the others, because OpenVINO joins in int8 only if all parts are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cxr_trt.export.graph_building import EARLY_MAPS
from cxr_trt.precision.float16 import layer_of, with_graph
from cxr_trt.precision.int8 import INT8_LEVELS, symmetric_scale

BLOCK = "features.denseblock"  # how the names of a dense block's layers begin
MEASURED_AS = {EARLY_MAPS: "features.transition1.conv"}  # what another name has where crops share early layers


def joined_features(model: onnx.ModelProto) -> list[str]:
    """The tensors that the dense blocks of a scoring graph join, in order."""
    return list(dict.fromkeys(name for node in _joining(model) for name in node.input))


def keep_features_in_int8(model: onnx.ModelProto, largest: Mapping[str, Sequence[float]]) -> onnx.ModelProto:
    """Quantize what dense blocks join.

    Args:
        model: a scoring graph, float32 or with convolutions in int8, whose blocks join all features at once
            (no `chunk_concats` of `cxr_trt.export.rewrites.Rewrites`).
        largest: for each layer that makes such features, the magnitude of each channel that becomes the highest level.
            Layers that are missing stay as they are.

    Returns:
        A copy with the same inputs and outputs.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    after: dict[str, list[onnx.NodeProto]] = {}
    for name in joined_features(model):
        layer = MEASURED_AS.get(name, layer_of(name))
        if layer not in largest:
            continue
        scale = symmetric_scale(np.asarray(largest[layer], np.float64), INT8_LEVELS)
        scaled = [f"{layer}.channel_scales", f"{layer}.channel_zeros"]
        weights[scaled[0]] = numpy_helper.from_array(scale, scaled[0])
        weights[scaled[1]] = numpy_helper.from_array(np.zeros(len(scale), np.int8), scaled[1])
        levels, restored = f"{name}.levels", f"{name}.from_levels"
        after[name] = [
            helper.make_node("QuantizeLinear", [name, *scaled], [levels], name=levels, axis=1),
            helper.make_node("DequantizeLinear", [levels, *scaled], [restored], name=restored, axis=1),
        ]
    joining = {node.name for node in _joining(model)}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.name in joining:
            copy.input[:] = [f"{name}.from_levels" if name in after else name for name in node.input]
        nodes += [copy, *(made for name in node.output for made in after.get(name, ()))]
    return with_graph(model, nodes, weights)


def _joining(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Concat" and layer_of(node.name).startswith(BLOCK)]
