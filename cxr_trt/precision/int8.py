"""The scoring graph in int8, with explicit QuantizeLinear and DequantizeLinear nodes.

The input of a convolution or matrix product is quantized, after norm and ReLU if there are any, with one scale per
tensor, and zero stays zero; kernels have one scale per output channel. Biases stay floating point, because TensorRT's
parser refuses int32 biases. All else keeps its type.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from cxr_trt.precision.float16 import in_network, layer_of, with_graph

INT8_LEVELS = 127  # per sign: symmetric int8 does not use -128
UINT8_LEVELS = 255
POSITIVE_OPERATORS = ("Relu", "Sigmoid", "Softmax")  # whose results are never negative
PASSING_OPERATORS = (
    *("AveragePool", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "ReduceMean"),
    *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)
"""Those whose results are not negative if what they take is not."""
MIN_SCALE = 2.0**-24  # the smallest positive float16 number


def quantize(model: onnx.ModelProto, thresholds: Mapping[str, float], *, unsigned: bool = False) -> onnx.ModelProto:
    """Quantize convolutions and products with a matrix of weights.

    Args:
        model: a float32 graph. `cxr_trt.precision.float16.to_float16`, if used, comes after this.
        thresholds: for each layer to quantize, the magnitude of its input that becomes the highest level.
        unsigned: whether inputs that are never negative have 255 levels (uint8) instead of 127; TensorRT has no uint8.

    Returns:
        A copy with the same inputs and outputs. All scales can be represented in float16.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weights |= {
        "zero": numpy_helper.from_array(np.int8(0), "zero"),
        "zero.unsigned": numpy_helper.from_array(np.uint8(0), "zero.unsigned"),
    }
    positive = never_negative(model) if unsigned else frozenset()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        layer = layer_of(node.name)
        if layer not in thresholds:
            nodes.append(node)
            continue
        activation, kernel, *bias = node.input
        levels, zero = (UINT8_LEVELS, "zero.unsigned") if activation in positive else (INT8_LEVELS, "zero")
        if f"{kernel}.int8" not in weights:
            _add_kernel(weights, kernel, output_axis(node))
            scale = symmetric_scale(np.float64(thresholds[layer]), levels)
            weights[f"{layer}.scale"] = numpy_helper.from_array(scale, f"{layer}.scale")
        scaled = [f"{layer}.scale", zero]
        axis = output_axis(node)
        quantized, restored, restored_kernel = (
            f"{node.name}.{part}" for part in ("quantized", "restored", "restored_kernel")
        )
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [restored, restored_kernel, *bias]
        scaled_kernel = [f"{kernel}.int8", f"{kernel}.scale", f"{kernel}.zero"]
        nodes += [
            helper.make_node("QuantizeLinear", [activation, *scaled], [quantized], name=quantized),
            helper.make_node("DequantizeLinear", [quantized, *scaled], [restored], name=restored),
            helper.make_node("DequantizeLinear", scaled_kernel, [restored_kernel], name=restored_kernel, axis=axis),
            copy,
        ]
    return with_graph(model, nodes, weights)


def quantizable(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that `quantize` can change: convolutions, and products with a matrix of weights; in order."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kernels = {"Conv": 4, "MatMul": 2, "Gemm": 2}  # dimensions of the weights
    return [
        node
        for node in model.graph.node
        if in_network(node.name)
        and node.op_type in kernels
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == kernels[node.op_type]
    ]


def never_negative(model: onnx.ModelProto) -> frozenset[str]:
    """The tensors that cannot hold a negative number, whatever the image: behind a ReLU, say."""
    found: set[str] = set()
    for node in model.graph.node:
        passes = node.op_type in PASSING_OPERATORS
        sources = node.input if node.op_type == "Concat" else node.input[:1]  # the others are shapes and the like
        if node.op_type in POSITIVE_OPERATORS or (passes and all(name in found for name in sources)):
            found.update(node.output)
    return frozenset(found)


def output_axis(node: onnx.NodeProto) -> int:
    """The axis of a quantizable node's weights that counts its outputs."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _add_kernel(weights: dict[str, onnx.TensorProto], name: str, axis: int) -> None:
    """Add a kernel in int8, with its scales [outputs] and zero points [outputs]; `axis` counts the outputs."""
    values = numpy_helper.to_array(weights[name]).astype(np.float64)
    others = tuple(i for i in range(values.ndim) if i != axis)
    scales = symmetric_scale(np.abs(values).max(others), INT8_LEVELS)
    per_output = np.expand_dims(scales.astype(np.float64), others)
    levels = np.round(values / per_output).clip(-INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    for part, array in (("int8", levels), ("scale", scales), ("zero", np.zeros(len(scales), np.int8))):
        weights[f"{name}.{part}"] = numpy_helper.from_array(array, f"{name}.{part}")


def symmetric_scale(largest: npt.NDArray[np.float64] | np.float64, levels: int) -> npt.NDArray[np.float32]:
    """The scale for magnitudes up to `largest`, rounded to float16 so that it is the same in every precision."""
    return np.asarray(np.maximum(largest / levels, MIN_SCALE).astype(np.float16).astype(np.float32))
