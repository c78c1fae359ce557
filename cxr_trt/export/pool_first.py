"""An exact rewrite of other projects' networks: where a 1x1 convolution precedes an average pooling, pool first.

Both are linear and work on different axes, so their order does not matter; the convolution then has a quarter of the
multiplications. A DenseNet does this in each transition. Of this project's own networks
`cxr_trt.export.graph_building` takes care.
"""

from collections import Counter
from typing import Any

import onnx
from onnx import helper

from cxr_trt.export.network_graph import PREFIX, tensors_into


def pool_before_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Swap each 1x1 convolution with the average pooling behind it, if nothing else reads what lies between them.

    Args:
        model: a scoring graph.

    Returns:
        A copy with the same inputs and outputs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in tensors_into(node))
    uses.update(output.name for output in model.graph.output)
    convolutions = {node.output[0]: node for node in copy.graph.node if _is_pointwise(node, shapes)}
    for pool in copy.graph.node:
        convolution = convolutions.get(pool.input[0]) if pool.op_type == "AveragePool" else None
        if convolution is None or uses[pool.input[0]] != 1 or not _is_linear(pool):
            continue
        pooled, result = f"{pool.name}.first", pool.output[0]
        first, then = onnx.NodeProto(), onnx.NodeProto()
        first.CopyFrom(pool)
        then.CopyFrom(convolution)
        first.input[0], first.output[0] = convolution.input[0], pooled
        then.input[0], then.output[0] = pooled, result
        convolution.CopyFrom(first)
        pool.CopyFrom(then)
    return copy


def _is_pointwise(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> bool:
    """Whether a node of a network is a convolution of single cells, which takes each of them."""
    if node.op_type != "Conv" or not node.name.startswith(PREFIX):
        return False
    attributes = _attributes(node)
    is_pointwise = shapes.get(node.input[1], [])[2:] == [1, 1]
    return is_pointwise and not any(attributes.get("pads", ())) and set(attributes.get("strides", (1,))) == {1}


def _is_linear(pool: onnx.NodeProto) -> bool:
    """Whether a pooling takes the mean of as many cells everywhere."""
    attributes = _attributes(pool)
    is_padded = any(attributes.get("pads", ())) or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    return not is_padded and not attributes.get("ceil_mode", 0)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
