"""What a scoring graph says of itself, and reading one that may come from anywhere."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from cxr_trt.errors import GraphError
from cxr_trt.export.storage import unpack
from cxr_trt.spec import Specification

PREFIX = "cxr_trt."
REMEDY = "make one with `cxr-trt export CHECKPOINT -o model.onnx`"


@dataclass(frozen=True)
class GraphInfo:
    """The metadata of a scoring graph; `trained` is False for random weights."""

    spec: Specification
    trained: bool
    checkpoint_sha256: str
    cxr_trt_version: str

    @classmethod
    def of(cls, spec: Specification, trained: bool, checkpoint_sha256: str) -> "GraphInfo":
        return cls(spec, trained, checkpoint_sha256, version("cxr-trt"))

    def to_metadata(self) -> dict[str, str]:
        return {
            f"{PREFIX}specification": self.spec.to_json(),
            f"{PREFIX}specification_sha256": self.spec.sha256,
            f"{PREFIX}trained": json.dumps(self.trained),
            f"{PREFIX}checkpoint_sha256": self.checkpoint_sha256,
            f"{PREFIX}version": self.cxr_trt_version,
        }


def read_scoring_graph(path: Path) -> tuple[onnx.ModelProto, GraphInfo]:
    """Read and check a scoring graph; weights that `cxr_trt.export.storage` packed come back as float32.

    Raises:
        GraphError: not an ONNX model, not made by `cxr-trt export`, changed since, or with weights in other files.
    """
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise GraphError(f"{path}: keeps its weights in other files; {REMEDY}")
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise GraphError(f"{path}: not a valid ONNX model ({str(error).splitlines()[0]}); {REMEDY}") from error
    info = _info(model, path)
    _check_tensors(model, info.spec, path)
    unpack(model)
    return model, info


def _info(model: onnx.ModelProto, path: Path) -> GraphInfo:
    metadata = {prop.key.removeprefix(PREFIX): prop.value for prop in model.metadata_props}
    try:
        text = metadata["specification"]
        spec = Specification.from_mapping(json.loads(text))
        info = GraphInfo(spec, json.loads(metadata["trained"]), metadata["checkpoint_sha256"], metadata["version"])
        stated = metadata["specification_sha256"]
    except GraphError as error:
        raise GraphError(f"{path}: {error}; {REMEDY}") from error
    except (KeyError, ValueError, TypeError) as error:
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
