"""What a scoring graph says of itself, and reading one that may come from anywhere."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from cxr_trt.errors import GraphError
from cxr_trt.export.storage import unpack
from cxr_trt.model.settings import CAUTIONS, Weights
from cxr_trt.spec import Specification

PREFIX = "cxr_trt."
MAX_BYTES = (1 << 31) - 1  # of a serialised protocol buffer
REMEDY = "make one with `cxr-trt export CHECKPOINT -o model.onnx`"


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of a scoring graph; `weights` is their kind."""

    spec: Specification
    weights: Weights
    checkpoint_sha256: str
    cxr_trt_version: str

    @classmethod
    def of(cls, spec: Specification, weights: Weights, checkpoint_sha256: str) -> "GraphInfo":
        return cls(spec, weights, checkpoint_sha256, version("cxr-trt"))

    def caution(self) -> str:
        """What is to be said of the weights, in brackets, to end a sentence with; nothing if they are trained."""
        return "".join(f" ({caution})" for caution in CAUTIONS[self.weights])

    def to_metadata(self) -> dict[str, str]:
        return {
            f"{PREFIX}specification": self.spec.to_json(),
            f"{PREFIX}specification_sha256": self.spec.sha256,
            f"{PREFIX}weights": self.weights,
            f"{PREFIX}checkpoint_sha256": self.checkpoint_sha256,
            f"{PREFIX}version": self.cxr_trt_version,
        }


def read_scoring_graph(path: Path) -> tuple[onnx.ModelProto, GraphInfo]:
    """Read and check a scoring graph; weights that `cxr_trt.export.storage` packed come back as float32.

    Raises:
        GraphError: not an ONNX model, not made by `cxr-trt export`, changed since, or with weights in other files.
    """
    model = load_alone(path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise GraphError(f"{path}: not a valid ONNX model ({_first_line(error)}); {REMEDY}") from error
    info = _info(model, path)
    _check_tensors(model, info.spec, path)
    try:
        unpack(model)
    except (TypeError, ValueError) as error:
        raise GraphError(f"{path}: its stored weights are damaged ({_first_line(error)}); {REMEDY}") from error
    return model, info


def load_alone(path: Path) -> onnx.ModelProto:
    """Read an ONNX model that consists of this one file, before anything follows a path that stands in it.

    Raises:
        GraphError: larger than a protocol buffer can be, damaged, or some tensor of it lies in another file.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise GraphError(f"{path}: is {size / 2**30:.1f} GiB large, more than an ONNX file can be; {REMEDY}")
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise GraphError(f"{path}: not a valid ONNX model ({_first_line(error)}); {REMEDY}") from error
    if _refers_elsewhere(model):
        raise GraphError(f"{path}: keeps its weights in other files; {REMEDY}")
    return model


def _refers_elsewhere(message: Message) -> bool:
    """Whether a tensor anywhere, be it in an attribute of a node of a function, lies in another file."""
    if isinstance(message, TensorProto):
        return message.data_location == TensorProto.EXTERNAL or len(message.external_data) > 0
    for field, value in message.ListFields():
        if field.message_type and any(map(_refers_elsewhere, value if field.is_repeated else [value])):
            return True
    return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _info(model: onnx.ModelProto, path: Path) -> GraphInfo:
    try:  # a text that is not UTF-8 comes as bytes
        metadata = {prop.key.removeprefix(PREFIX): prop.value for prop in model.metadata_props}
        text = metadata["specification"]
        spec = Specification.from_mapping(json.loads(text))
        info = GraphInfo(spec, cast(Weights, metadata["weights"]), metadata["checkpoint_sha256"], metadata["version"])
        if info.weights not in CAUTIONS:
            raise ValueError("its kind of weights is unknown")
        stated = metadata["specification_sha256"]
    except GraphError as error:
        raise GraphError(f"{path}: {error}; {REMEDY}") from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise GraphError(f"{path}: an ONNX model, but not a scoring graph of cxr-trt; {REMEDY}") from error
    if hashlib.sha256(text.encode()).hexdigest() != stated:
        raise GraphError(f"{path}: its specification was changed after the export; {REMEDY}")
    return info


def _check_tensors(model: onnx.ModelProto, spec: Specification, path: Path) -> None:
    def signature(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, *(d.dim_value or d.dim_param for d in tensor.shape.dim)

    inputs = [signature(value) for value in model.graph.input]
    outputs = [signature(value) for value in model.graph.output]
    if inputs != [("images", TensorProto.UINT8, "N", 1, spec.image_size, spec.image_size)] or (
        ("probabilities", TensorProto.FLOAT, "N", len(spec.findings)) not in outputs
    ):
        raise GraphError(f"{path}: its inputs and outputs are not those of a scoring graph; {REMEDY}")
