"""Tensors of an ONNX model whose values are in other files."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from cxr_trt.errors import GraphError


def external_tensors(message: Message) -> Iterator[TensorProto]:
    """The tensors, even those in an attribute of a function's node, that are stored in another file."""
    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL or len(message.external_data) > 0:
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                yield from external_tensors(part)


def load_weights_beside(model: onnx.ModelProto, path: Path) -> None:
    """Fill in the values that are in files of the model's own folder.

    Args:
        model: the model.
        path: the file that it was read from.

    Raises:
        GraphError: a file lies in another folder, or is missing.
    """
    folder = path.resolve().parent
    for tensor in external_tensors(model):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise GraphError(
                f"{path}: keeps weights outside its folder ({location or 'nowhere'}); export it again, as one file"
            )
        if not file.is_file():
            raise GraphError(f"{path}: keeps weights in the file {location}, which is not there; copy it beside it")
    onnx.external_data_helper.load_external_data_for_model(model, str(folder))
