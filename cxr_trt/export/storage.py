"""Halving the file of a model that is shipped: weights are stored as float16 and become float32 when they are read.

This is not a precision, since the float32 graph runs. Weights must have been rounded to float16 before the export.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STORED_SUFFIX = ".float16"  # of the name of a stored tensor


def pack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every float32 matrix and kernel as float16, with a Cast, if float16 can represent its values exactly.

    The results of the model do not change on any backend.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(model)
    casts = []
    for tensor in packed.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if np.array_equal(rounded.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(rounded, name + STORED_SUFFIX))
            casts.append(
                helper.make_node("Cast", [name + STORED_SUFFIX], [name], name=name + ".cast", to=TensorProto.FLOAT)
            )
    nodes = [*casts, *packed.graph.node]
    del packed.graph.node[:]
    packed.graph.node.extend(nodes)
    return packed


def unpack(model: onnx.ModelProto) -> None:
    """Undo `pack` in place: turn the stored weights into float32. Models that are not packed do not change."""
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
