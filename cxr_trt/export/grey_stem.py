"""An exact rewrite of other projects' networks: the first convolution reads the grey picture itself.

Most networks were made for colour pictures and get the grey one three times, each channel with its own mean and
deviation. A convolution is linear, so its kernels for these channels can be added up once and for all, and what the
normalisation adds becomes a constant. Where the convolution pads with zeros, that constant differs near the edges, so
that it is as large as the features: this pays for pictures up to some 300 pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from cxr_trt.export.framing import NORMALISE_SCALE, NORMALISE_SHIFT
from cxr_trt.export.network_graph import PREFIX, tensors_into

MAX_CONSTANT = 1 << 20  # numbers, 4 MiB
MIDDLE_GREY = 128.0  # subtracted from the grey values, so that a kernel that is rounded to bfloat16 errs less
Floats = npt.NDArray[np.float64]


def read_grey(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the first convolution read one channel in place of several.

    Args:
        model: a scoring graph.

    Returns:
        A copy with the same inputs and outputs. Nothing is changed where the network begins with anything but one
        convolution, has only one channel, or would need too large a constant; nor in the DenseNet family, which
        `cxr_trt.export.graph_building` builds.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in model.graph.node:
        if NORMALISE_SHIFT in node.input:
            _read_grey(copy, node)
    _remove_unused(copy.graph)
    return copy


def _read_grey(model: onnx.ModelProto, add: onnx.NodeProto) -> None:
    """Rewrite what follows one normalisation, which `add` ends, in place."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    scale, shift = (_values(constants[name]).ravel() for name in (NORMALISE_SCALE, NORMALISE_SHIFT))
    readers = _readers(graph, add.output[0])
    convolutions = [node for node in readers if node.op_type == "Conv" and node.input[1] in constants]
    if len(convolutions) != 1 or any(node.op_type not in ("Conv", "Shape") for node in readers) or len(scale) == 1:
        return
    (convolution,) = convolutions
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in convolution.attribute}
    size = _plane_size(model, add.output[0])
    if size is None or attributes.get("group", 1) != 1 or not convolution.name.startswith(PREFIX):
        return

    kernel = _values(constants[convolution.input[1]])  # [out, channels, h, w]
    grey_kernel = np.einsum("ochw,c->ohw", kernel, scale)[:, None]
    level_kernel = np.einsum("ochw,c->ohw", kernel, scale * MIDDLE_GREY + shift)[:, None]
    constant = _convolved_plane(level_kernel, attributes, size)  # [1, out, H, W]
    if len(convolution.input) > 2:
        constant += _values(constants[convolution.input[2]]).reshape(1, -1, 1, 1)
    if not any(attributes.get("pads", ())) and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"):
        constant = constant[:, :, :1, :1]
    if constant.size > MAX_CONSTANT:
        return

    name = convolution.name
    added = {f"{name}.middle": np.asarray(MIDDLE_GREY), f"{name}.kernel": grey_kernel, f"{name}.constant": constant}
    graph.initializer.extend(numpy_helper.from_array(array.astype(np.float32), key) for key, array in added.items())
    pixels = next(node.input[0] for node in graph.node if add.input[0] in node.output)
    nodes = [
        helper.make_node("Sub", [pixels, f"{name}.middle"], [f"{name}.grey"], name=f"{name}.grey"),
        helper.make_node("Conv", [f"{name}.grey", f"{name}.kernel"], [f"{name}.kept"], name=name, **attributes),
        helper.make_node("Add", [f"{name}.kept", f"{name}.constant"], convolution.output, name=f"{name}.whole"),
    ]
    place = list(graph.node).index(convolution)
    del graph.node[place]
    for node in reversed(nodes):
        graph.node.insert(place, node)


def _readers(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    """The nodes that read a tensor, also under another name."""
    readers: list[onnx.NodeProto] = []
    for node in graph.node:
        if tensor in tensors_into(node):
            readers += _readers(graph, node.output[0]) if node.op_type == "Identity" else [node]
    return readers


def _plane_size(model: onnx.ModelProto, tensor: str) -> tuple[int, int] | None:
    """Height and width of a tensor [N, channels, h, w], if they are known."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.value_info:
        if value.name == tensor:
            height, width = (dimension.dim_value for dimension in value.type.tensor_type.shape.dim[2:])
            return (height, width) if height and width else None
    return None


def _convolved_plane(kernel: Floats, attributes: Mapping[str, Any], size: tuple[int, int]) -> Floats:
    """What a convolution makes of a plane [1, 1, h, w] of ones."""
    from onnx.reference import ReferenceEvaluator  # here: slow to import, and only builds need it

    plane = helper.make_tensor_value_info("plane", onnx.TensorProto.DOUBLE, [1, 1, *size])
    result = helper.make_tensor_value_info("result", onnx.TensorProto.DOUBLE, None)
    weights = numpy_helper.from_array(kernel, "kernel")
    node = helper.make_node("Conv", ["plane", "kernel"], ["result"], **attributes)
    model = helper.make_model(
        helper.make_graph([node], "plane", [plane], [result], [weights]), opset_imports=[helper.make_opsetid("", 19)]
    )
    results: list[Floats] = ReferenceEvaluator(model).run(None, {"plane": np.ones((1, 1, *size))})  # type: ignore[assignment]
    return results[0]


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output depends on, in place."""
    used = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used |= tensors_into(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _values(tensor: onnx.TensorProto) -> Floats:
    return numpy_helper.to_array(tensor).astype(np.float64)
