"""Running ONNX models of any origin with ONNX Runtime on the CPU, to look at what they give."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx

from cxr_trt.errors import GraphError

if TYPE_CHECKING:
    import onnxruntime

FATAL_ONLY = 4  # the least severity of what ONNX Runtime logs: errors are raised anyway


def open_session(model: onnx.ModelProto, name: str) -> "onnxruntime.InferenceSession":
    """Open a model; `name` stands in the message. Raises GraphError if ONNX Runtime refuses it."""
    import onnxruntime  # here: an engine that another backend runs opens sooner

    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise GraphError(
            f"{name}: ONNX Runtime cannot run it ({first_line(error)}); export it with standard operators"
        ) from error


def run_model(
    model: onnx.ModelProto, name: str, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]
) -> list[npt.NDArray[Any]]:
    """The named outputs of a model; `name` stands in the message. Raises GraphError if ONNX Runtime cannot run it."""
    session = open_session(model, name)
    try:
        values: list[npt.NDArray[Any]] = session.run(list(outputs), dict(inputs))
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise GraphError(f"{name}: ONNX Runtime failed in it ({first_line(error)}); export it again") from error
    return values


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the name of its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
