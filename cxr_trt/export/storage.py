"""Half the file for a model that is shipped: weights stored as float16 that a reader turns into float32 again.

Not a precision: what runs is the float32 graph. The rounding belongs to the weights themselves, before the export.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STORED_SUFFIX = ".float16"  # ends the name of a stored tensor


def pack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every float32 matrix and kernel whose values are float16 numbers as float16, behind a Cast.

    The model computes what it did before, anywhere.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    casts = []
    for tensor in packed.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, name + STORED_SUFFIX))
            casts.append(
                helper.make_node("Cast", [name + STORED_SUFFIX], [name], name=name + ".cast", to=TensorProto.FLOAT)
            )
    nodes = [*casts, *packed.graph.node]
    del packed.graph.node[:]
    packed.graph.node.extend(nodes)
    return packed


def unpack(model: onnx.ModelProto) -> None:
    """Turn what `pack` stored into float32 weights, in place; a model without any stays as it is."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(STORED_SUFFIX)}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in stored:
            tensor = stored[node.input[0]]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
