"""Class activation maps of a network that ends in a linear layer on the mean of its last features (Zhou et al. 2016).

Mean and linear layer commute, so the layer applied to each cell of the features gives maps whose mean is the output.
The maps are added to the network's graph; its outputs stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.errors import GraphError
from cxr_trt.export.network_graph import CROPS, MAPS, OUTPUTS, PREFIX, NetworkGraph, network_model
from cxr_trt.export.session import run_model
from cxr_trt.views import Size

PASSING_OPERATORS = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")  # do not change any value
ACTIVATIONS = ("Sigmoid", "Softmax")  # after the linear layer
MAX_MAPS_DIFFERENCE = 1e-4  # of a map's mean from the output, relative to the largest output


def add_activation_maps(network: NetworkGraph, shape: Sequence[int]) -> tuple[NetworkGraph, Size] | None:
    """The network with class maps, and their size; None if it does not end as they need it, or is quantized there.

    Args:
        network: the network, without maps.
        shape: channels, height and width of a crop.
    """
    end = _linear_end(network)
    if end is None:
        return None
    features, kernel, bias = end
    weights = [*network.weights, numpy_helper.from_array(kernel[:, :, None, None], f"{PREFIX}maps.weight")]
    inputs = [features, f"{PREFIX}maps.weight"]
    if bias is not None:
        weights.append(numpy_helper.from_array(bias, f"{PREFIX}maps.bias"))
        inputs.append(f"{PREFIX}maps.bias")
    conv = helper.make_node("Conv", inputs, [MAPS], name=f"{PREFIX}maps", kernel_shape=[1, 1])
    with_maps = replace(network, nodes=(*network.nodes, conv), weights=tuple(weights), has_maps=True)
    cells = _checked_size(with_maps, shape)
    return (with_maps, cells) if cells else None


def _linear_end(
    network: NetworkGraph,
) -> tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32] | None] | None:
    """The features [N, C, h, w], and kernel [K, C] and bias [K] of the linear layer on their mean; None if none."""
    producers = {name: node for node in network.nodes for name in node.output}
    weights = {tensor.name: tensor for tensor in network.weights}

    def before(name: str, passing: Sequence[str]) -> onnx.NodeProto | None:
        node = producers.get(name)
        while node is not None and node.op_type in passing:
            node = producers.get(node.input[0])
        return node

    def constant(name: str) -> npt.NDArray[Any] | None:
        node = producers.get(name)
        if node is not None and node.op_type in ("Transpose", "Identity") and node.input[0] in weights:
            values = numpy_helper.to_array(weights[node.input[0]])
            return values.T if node.op_type == "Transpose" else values
        return numpy_helper.to_array(weights[name]) if name in weights else None

    linear, bias = before(OUTPUTS, (*PASSING_OPERATORS, *ACTIVATIONS)), None
    if linear is not None and linear.op_type == "Add":
        bias = next((found for name in linear.input if (found := constant(name)) is not None), None)
        linear = next((producers[name] for name in linear.input if name in producers and constant(name) is None), None)
    if linear is None or linear.op_type not in ("Gemm", "MatMul"):
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in linear.attribute}
    kernel = constant(linear.input[1])
    if linear.op_type == "Gemm" and len(linear.input) > 2:
        bias = constant(linear.input[2])
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    if kernel is None or kernel.dtype != np.float32 or kernel.ndim != 2 or not plain:
        return None
    mean = before(linear.input[0], PASSING_OPERATORS)
    if mean is None or mean.op_type not in ("GlobalAveragePool", "ReduceMean"):
        return None
    kernel = kernel if attributes.get("transB", 0) else kernel.T
    return mean.input[0], np.ascontiguousarray(kernel), None if bias is None else np.ravel(bias).astype(np.float32)


def _checked_size(network: NetworkGraph, shape: Sequence[int]) -> Size | None:
    """The size of the maps, if their mean is what the linear layer gives for a random crop; otherwise None.

    This also finds means over other axes than height and width.
    """
    producers = {name: node for node in network.nodes for name in node.output}
    logits = OUTPUTS
    while producers[logits].op_type in (*PASSING_OPERATORS, *ACTIVATIONS):
        logits = producers[logits].input[0]
    model = network_model(network, shape)
    model.graph.output.append(helper.make_tensor_value_info(logits, TensorProto.FLOAT, None))
    crops = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    try:
        maps, expected = run_model(model, "the network", [MAPS, logits], {CROPS: crops})
    except GraphError:  # features of another rank
        return None
    scale = max(1.0, float(np.abs(expected).max()))
    if maps.ndim != 4 or not np.abs(maps.mean((2, 3)) - expected.reshape(1, -1)).max() <= MAX_MAPS_DIFFERENCE * scale:
        return None
    return Size(*maps.shape[2:])
