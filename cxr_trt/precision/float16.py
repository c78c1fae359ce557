"""The scoring graph in float16: with the types that strongly typed TensorRT needs, and emulated for a CPU.

The network's weights and activations are float16. Pixels, the gates' means and their two small matrices, the pooling,
the probabilities and the merging of class maps stay float32: they take almost no time, and in float16 a mean over 3,136
cells or a sum over ten crops would lose precision.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.export.pooling import POOLING_OPERATOR

TYPE_KEEPING_OPERATORS = ("Slice", "Concat", "Reshape", "Transpose")  # their output has the type of their input
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)


def layer_of(name: str) -> str:
    """The layer of a node, weight or tensor, without the prefix for the image part on which it runs."""
    return name[max(name.find("features."), 0) :]


def to_float16(model: onnx.ModelProto, float32: Collection[str]) -> onnx.ModelProto:
    """Change the network's types to float16.

    Args:
        model: a float32 graph with affine norms (`cxr_trt.export.rewrites.Rewrites`), quantized or not.
        float32: layers that stay float32.

    Returns:
        A copy with the same inputs and outputs.
    """
    casting = _Casting(model)
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        floats = [name for name in node.input if casting.types[name] in FLOAT_TYPES]
        if node.op_type in ("Cast", POOLING_OPERATOR):
            element_type = None
        elif layer_of(node.name) in float32:
            element_type = TensorProto.FLOAT
        elif node.op_type in TYPE_KEEPING_OPERATORS:
            is_float16 = all(casting.types[name] == TensorProto.FLOAT16 for name in floats)
            element_type = TensorProto.FLOAT16 if is_float16 else TensorProto.FLOAT
        else:
            element_type = TensorProto.FLOAT16 if in_network(node.name) else TensorProto.FLOAT
        if element_type is not None:
            copy.input[:] = [casting.cast(name, element_type) if name in floats else name for name in node.input]
        casting.append(copy)
    return casting.model()


def in_network(name: str) -> bool:
    """Whether the node of that name belongs to the part of the graph that is float16."""
    layer = layer_of(name)
    return layer.startswith(("features.", "transfer")) and ".se." not in layer


class _Casting:
    """Collects nodes and adds the casts between them. Each tensor is cast at most once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = {name: tensor.data_type for name, tensor in self._weights.items()}
        self.types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        self._nodes: list[onnx.NodeProto] = []

    def cast(self, name: str, element_type: int) -> str:
        """Cast a tensor if it has another type, and return the name of the result."""
        if self.types[name] == element_type:
            return name
        cast = f"{name}.{'half' if element_type == TensorProto.FLOAT16 else 'float'}"
        if cast in self.types:
            return cast
        if name in self._weights:
            dtype = helper.tensor_dtype_to_np_dtype(element_type)
            values = numpy_helper.to_array(self._weights[name]).astype(dtype)
            self._weights[cast] = numpy_helper.from_array(values, cast)
            self.types[cast] = element_type
        else:
            self.append(helper.make_node("Cast", [name], [cast], name=cast, to=element_type))
        return cast

    def append(self, node: onnx.NodeProto) -> None:
        self.types[node.output[0]] = output_type(node, self.types)
        self._nodes.append(node)

    def model(self) -> onnx.ModelProto:
        return with_graph(self._model, self._nodes, self._weights)


def output_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """The element type of a node's output, given the element types of its inputs."""
    if node.op_type == "Cast":
        return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
    if node.op_type == POOLING_OPERATOR:
        return int(TensorProto.FLOAT)
    if node.op_type == "QuantizeLinear":
        return int(TensorProto.INT8)
    return types[node.input[1 if node.op_type == "DequantizeLinear" else 0]]


def with_graph(
    model: onnx.ModelProto, nodes: Collection[onnx.NodeProto], weights: Mapping[str, onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy of the model with other nodes, and with those of the weights that they use."""
    used = {name for node in nodes for name in node.input}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(weights[name] for name in weights if name in used)
    return copy


def rounded_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to float16 wherever `model` has a float16 tensor.

    On a CPU, ONNX Runtime computes consecutive float16 nodes in float32 without rounding between them, so the float16
    graph would seem more accurate there than it is on a GPU. Here each result is rounded, and becomes infinite where
    float16 overflows, while sums inside a node keep float32 accuracy, as they do in a GPU's convolutions.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    weights = {}
    for tensor in model.graph.initializer:
        is_float16 = tensor.data_type == TensorProto.FLOAT16
        values = numpy_helper.to_array(tensor).astype(np.float32) if is_float16 else None
        weights[tensor.name] = tensor if values is None else numpy_helper.from_array(values, tensor.name)
    nodes = []
    for node in model.graph.node:
        (output,) = node.output
        types[output] = output_type(node, types)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type == "Cast" and types[node.input[0]] == TensorProto.FLOAT16:
            copy = helper.make_node("Identity", node.input, node.output, name=node.name)
        elif types[output] == TensorProto.FLOAT16 and node.op_type not in TYPE_KEEPING_OPERATORS:
            exact, rounded = f"{output}.exact", f"{output}.rounded"
            if node.op_type == "Cast":
                to_round = node.input[0]
            else:
                copy.output[:] = [exact]
                nodes.append(copy)
                to_round = exact
            nodes.append(helper.make_node("Cast", [to_round], [rounded], name=rounded, to=TensorProto.FLOAT16))
            copy = helper.make_node("Cast", [rounded], [output], name=f"{output}.back", to=TensorProto.FLOAT)
        nodes.append(copy)
    return with_graph(model, nodes, weights)
