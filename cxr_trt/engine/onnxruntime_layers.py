"""What each layer takes in a session of ONNX Runtime, on a CPU or a GPU: from the trace that it writes itself."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import LayerTime, median_layers
from cxr_trt.errors import BackendError

if TYPE_CHECKING:
    import onnxruntime

KERNEL_SUFFIX = "_kernel_time"  # of the events of layers in a trace
LOOP = "Scan"


def time_layers(
    options: "onnxruntime.SessionOptions",
    open_session: "Callable[[], onnxruntime.InferenceSession]",
    image: npt.NDArray[np.uint8],
    runs: int,
) -> list[LayerTime]:
    """The median seconds of each layer of a session that is opened with `options`. Raises BackendError."""
    with tempfile.TemporaryDirectory() as traces:
        options.enable_profiling, options.profile_file_prefix = True, f"{traces}/trace"
        try:
            session = open_session()
            for _ in range(1 + runs):  # the first is slower
                session.run(None, {"images": image})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot time the engine's layers: {error}") from error
        trace = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return median_layers(_runs_of(trace)[1:])


def _runs_of(trace: Iterable[Mapping[str, Any]]) -> list[list[LayerTime]]:
    """The layers of each run in a trace of ONNX Runtime, whose times are in microseconds.

    Of a loop over the crops, the layers inside are told, each with its time for all crops.
    """
    runs: list[list[LayerTime]] = []
    kernels: dict[str, LayerTime] = {}
    for event in trace:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            name, kind = event["name"].removesuffix(KERNEL_SUFFIX), event["args"]["op_name"]
            if kind != LOOP:
                before = kernels[name].seconds if name in kernels else 0.0
                kernels[name] = LayerTime(name, kind, before + event["dur"] / 1e6)
        elif event["name"] == "model_run":
            runs.append(list(kernels.values()))
            kernels = {}
    return runs
