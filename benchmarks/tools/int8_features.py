"""A rewrite that was tried: the features of dense blocks are kept in int8, with one scale per channel.

The norm behind a concatenation scales each channel anyway, so it can take in these scales.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from cxr_trt.export.session import run_model
from cxr_trt.precision.float16 import with_graph
from cxr_trt.precision.int8 import INT8_LEVELS, MIN_SCALE

BLOCK = "denseblock"  # part of the names of all nodes of a dense block


def keep_features_in_int8(model: onnx.ModelProto, image: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """Quantize whatever a dense block joins, to the largest magnitude of each channel in one X-ray.

    Args:
        model: a scoring graph, float32 or with convolutions in int8.
        image: the X-ray, uint8 [1, 1, height, width].
    """
    joining = [node for node in model.graph.node if node.op_type == "Concat" and BLOCK in node.name]
    features = list(dict.fromkeys(name for node in joining for name in node.input))
    largest = _largest_of_channels(model, features, image)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    after: dict[str, list[onnx.NodeProto]] = {}
    for name in features:
        scale = np.maximum(largest[name] / INT8_LEVELS, MIN_SCALE).astype(np.float32)
        scaled = [f"{name}.channel_scales", f"{name}.channel_zeros"]
        weights[scaled[0]] = numpy_helper.from_array(scale, scaled[0])
        weights[scaled[1]] = numpy_helper.from_array(np.zeros(len(scale), np.int8), scaled[1])
        levels, restored = f"{name}.levels", f"{name}.from_levels"
        after[name] = [
            helper.make_node("QuantizeLinear", [name, *scaled], [levels], name=levels, axis=1),
            helper.make_node("DequantizeLinear", [levels, *scaled], [restored], name=restored, axis=1),
        ]
    nodes = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node in joining:
            copy.input[:] = [f"{name}.from_levels" for name in node.input]
        nodes += [copy, *(made for name in node.output for made in after.get(name, ()))]
    return with_graph(model, nodes, weights)


def _largest_of_channels(
    model: onnx.ModelProto, names: list[str], image: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float32]]:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = run_model(watched, "the scoring graph", names, {model.graph.input[0].name: image})
    return {name: np.abs(value).max((0, 2, 3)) for name, value in zip(names, values, strict=True)}
