"""The least time that an X-ray can take, from the graph's arithmetic and memory traffic and the device's peaks.

A GPU's peaks are those that its vendor publishes (`cxr_trt.measure.gpu_peaks`), a processor's are measured
(`cxr_trt.measure.cpu_peaks`).

This is a limit, not a measurement. It assumes one kernel for each convolution, pooling and matrix product, that
everything between them (norms, activations, gates, crops, concatenation) is free, and that each operand passes through
memory once. An engine that keeps operands in the GPU's cache can have less traffic. Its arithmetic, which is counted
for direct convolution, can only be less with another algorithm such as Winograd's.

The limit "as typed" is nearer to what an inference library makes of the graph: it fuses norms and activations into the
convolution before them, but not into one behind them. A DenseNet normalises what it has concatenated before it
convolves, so each of those norms is a kernel that reads and writes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import onnx
import onnx.inliner

ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}  # of a weight or an activation, by precision
KERNEL_OPERATORS = ("Conv", "Gemm", "MatMul", "MaxPool", "AveragePool")
FUSING_OPERATORS = ("Conv", "Gemm", "MatMul")  # what follows one of these elementwise becomes part of its kernel
ELEMENTWISE_OPERATORS = ("Add", "BatchNormalization", "Clip", "Div", "HardSigmoid", "Mul", "Relu", "Sigmoid", "Sub")


@dataclass(frozen=True)
class Layer:
    """What one kernel does for one X-ray: multiplications, and elements that it reads and writes.

    weights: the number of weights, which are read once per batch.
    image_bytes: bytes read from the X-ray itself, which is uint8 in every precision.
    """

    name: str
    multiplications: int
    read: int
    written: int
    weights: int
    image_bytes: int = 0

    def bytes(self, precision: str, batch: int) -> float:
        """The least memory traffic per X-ray, if the weights are read once for `batch` X-rays."""
        return self.image_bytes + ELEMENT_BYTES[precision] * (self.read + self.written + self.weights / batch)


class Peaks(Protocol):
    """What a device does at most."""

    @property
    def operations(self) -> Mapping[str, float]:
        """Per second, by precision; a multiplication with its addition is two."""
        ...

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        ...


def layers(model: onnx.ModelProto, *, as_typed: bool = False) -> list[Layer]:
    """The kernels of a scoring graph, for one X-ray, in the graph's order.

    Args:
        model: the graph.
        as_typed: whether elementwise operations that do not follow a convolution have kernels of their own, one for
            those that follow each other.
    """
    model = _for_one_image(model)
    graph = model.graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    weights = {tensor.name for tensor in graph.initializer}
    image = graph.input[0].name
    sources: dict[str, frozenset[str]] = {image: frozenset({image})}  # for each tensor, the tensors in memory behind it
    fusing = set[str]()  # tensors whose kernel takes in the elementwise operation that follows
    uses = Counter(name for node in graph.node for name in node.input)
    found = []

    def kernel(node: onnx.NodeProto, inputs: frozenset[str], used: list[str]) -> Layer:
        return Layer(
            node.name,
            _multiplications(node, sizes),
            read=sum(prod(sizes[name]) for name in inputs if name != image),
            written=prod(sizes[node.output[0]]),
            weights=sum(prod(sizes[name]) for name in used),
            image_bytes=prod(sizes[image]) if image in inputs else 0,
        )

    for node in graph.node:
        inputs = frozenset[str]().union(*(sources.get(name, frozenset()) for name in node.input))
        if node.op_type in KERNEL_OPERATORS:
            found.append(kernel(node, inputs, [name for name in node.input if name in weights]))
            inputs = frozenset({node.output[0]})
            if node.op_type in FUSING_OPERATORS:
                fusing.add(node.output[0])
        elif as_typed and node.op_type in ELEMENTWISE_OPERATORS and inputs:
            if not any(name in fusing and uses[name] == 1 for name in node.input):
                found.append(kernel(node, inputs, []))
            inputs = frozenset({node.output[0]})
            fusing.add(node.output[0])
        sources |= dict.fromkeys(node.output, inputs)
    return found


def seconds(found: Iterable[Layer], peaks: Peaks, precision: str, batch: int) -> float:
    """The least seconds per X-ray if layers run one after another, each limited by its arithmetic or its traffic."""
    return sum(
        max(2 * layer.multiplications / peaks.operations[precision], layer.bytes(precision, batch) / peaks.bandwidth)
        for layer in found
    )


def arithmetic_seconds(found: Iterable[Layer], peaks: Peaks, precision: str) -> float:
    """The least seconds per X-ray for the arithmetic alone."""
    return sum(2 * layer.multiplications for layer in found) / peaks.operations[precision]


def _for_one_image(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for a batch of one, in which every tensor has its shape."""
    copy = onnx.inliner.inline_local_functions(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)


def _multiplications(node: onnx.NodeProto, sizes: dict[str, list[int]]) -> int:
    outputs = prod(sizes[node.output[0]])
    if node.op_type == "Conv":
        return outputs * prod(sizes[node.input[1]][1:])  # [out, in / groups, height, width]
    if node.op_type in ("Gemm", "MatMul"):
        return outputs * sizes[node.input[0]][-1]
    return 0
