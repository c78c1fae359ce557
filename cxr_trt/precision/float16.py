"""The scoring graph in float16: with the types that strongly typed TensorRT needs, and emulated for a CPU.

The network's weights and activations are float16. Pixels, the gates' means and their two small matrices, the pooling,
the probabilities and the merging of class maps stay float32: they take almost no time, and in float16 a mean over 3,136
cells or a sum over ten crops would lose precision.
"""

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.errors import GraphError
from cxr_trt.export.network_graph import FLOAT32_PART
from cxr_trt.export.network_graph import PREFIX as NETWORK_PREFIX
from cxr_trt.export.pooling import POOLING_OPERATOR

TYPE_KEEPING_OPERATORS = (
    *("Slice", "Concat", "Reshape", "Transpose", "Split", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Gather"),
    *(
        "Identity",
        "Tile",
        "Pad",
        "DepthToSpace",
        "SpaceToDepth",
    ),
)  # their output has the type of their input, and none of them rounds
HALF_SUFFIX, FLOAT_SUFFIX = ".half", ".float"  # of the names of tensors that were cast
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
FLOAT32_INPUTS = {"Resize": (1, 2)}  # inputs that an operator takes only as float32


def layer_of(name: str) -> str:
    """The layer of a node, weight or tensor, without the prefix for the view or image part on which it runs."""
    network = name.find(NETWORK_PREFIX)
    return name[network if network >= 0 else max(name.find("features."), 0) :]


def to_float16(model: onnx.ModelProto, float32: Collection[str]) -> onnx.ModelProto:
    """Change the network's types to float16.

    Args:
        model: a float32 graph with affine norms (`cxr_trt.export.rewrites.Rewrites`), quantized or not.
        float32: layers that stay float32.

    Returns:
        A copy with the same inputs and outputs.

    Raises:
        GraphError: the network branches or loops.
    """
    casting = _Casting(model)
    for node in model.graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise GraphError(f"the network's {node.op_type} holds a graph, which cannot run in float16; use fp32")
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        float32_inputs = [node.input[i] for i in FLOAT32_INPUTS.get(node.op_type, ()) if i < len(node.input)]
        floats = [name for name in node.input if casting.types.get(name) in FLOAT_TYPES and name not in float32_inputs]
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
    if layer.startswith(NETWORK_PREFIX):
        return f".{FLOAT32_PART}." not in layer
    return layer.startswith(("features.", "transfer")) and ".se." not in layer


class _Casting:
    """Collects nodes and adds the casts between them. Each tensor is cast at most once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._float32_types = element_types(model)
        self.types = {name: tensor.data_type for name, tensor in self._weights.items()}
        self.types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        self._nodes: list[onnx.NodeProto] = []

    def cast(self, name: str, element_type: int) -> str:
        """Cast a tensor if it has another type, and return the name of the result."""
        if self.types[name] == element_type:
            return name
        cast = name + (HALF_SUFFIX if element_type == TensorProto.FLOAT16 else FLOAT_SUFFIX)
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
        for name in filter(None, node.output):
            before = self._float32_types.get(name, TensorProto.FLOAT)
            self.types[name] = output_type(node, self.types) if before in FLOAT_TYPES else before
        self._nodes.append(node)

    def model(self) -> onnx.ModelProto:
        return with_graph(self._model, self._nodes, self._weights)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor of a model, as far as it can be inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def output_type(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    """The element type of a node's floating-point or int8 output, given the element types of its inputs."""
    if node.op_type == "Cast":
        return next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
    if node.op_type == POOLING_OPERATOR:
        return int(TensorProto.FLOAT)
    if node.op_type == "QuantizeLinear":
        return int(TensorProto.INT8)
    if node.op_type == "DequantizeLinear":
        return types[node.input[1]]
    return next((types[name] for name in node.input if types.get(name) in FLOAT_TYPES), int(TensorProto.FLOAT))


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
    float16 overflows. Sums inside a node keep float32 accuracy, which is the best that a GPU does: TensorRT may choose
    convolutions that sum in float16, and what those lose is not seen here.
    """
    if any(_came_in_float16(tensor) for tensor in model.graph.initializer):
        return model
    types = element_types(model)
    weights = {}
    for tensor in model.graph.initializer:
        is_float16 = tensor.data_type == TensorProto.FLOAT16
        values = numpy_helper.to_array(tensor).astype(np.float32) if is_float16 else None
        weights[tensor.name] = tensor if values is None else numpy_helper.from_array(values, tensor.name)
    nodes = []
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        float16 = [name for name in node.output if types.get(name) == TensorProto.FLOAT16]
        if node.op_type == "Cast" and types[node.input[0]] == TensorProto.FLOAT16 and not float16:
            nodes.append(helper.make_node("Identity", node.input, node.output, name=node.name))
        elif node.op_type == "Cast" and float16:
            nodes += _rounding(node.input[0], node.output[0])
        elif float16 and node.op_type not in TYPE_KEEPING_OPERATORS:
            copy.output[:] = [f"{name}.exact" if name in float16 else name for name in node.output]
            nodes.append(copy)
            for name in float16:
                nodes += _rounding(f"{name}.exact", name)
        else:
            nodes.append(copy)
    return with_graph(model, nodes, weights)


def _came_in_float16(tensor: onnx.TensorProto) -> bool:
    """Whether a weight is from a network that was float16 already, which runs as it came."""
    is_float16: bool = tensor.data_type == TensorProto.FLOAT16
    return is_float16 and tensor.name.startswith(NETWORK_PREFIX) and not tensor.name.endswith(HALF_SUFFIX)


def _rounding(name: str, rounded: str) -> list[onnx.NodeProto]:
    """Nodes that round a float32 tensor to float16."""
    return [
        helper.make_node("Cast", [name], [f"{rounded}.rounded"], name=f"{rounded}.rounded", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{rounded}.rounded"], [rounded], name=f"{rounded}.back", to=TensorProto.FLOAT),
    ]
