"""ONNX Runtime on the CPU: runs the graph as it is, and float16 in float32 with each result rounded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from cxr_trt.engine.backend import BuildOptions, CpuBackend, Outputs
from cxr_trt.errors import BackendError
from cxr_trt.export.half import rounded
from cxr_trt.spec import Specification

GRAPH = "engine.onnx"


class OnnxRuntimeBackend(CpuBackend):
    """See `Backend`."""

    name = "onnxruntime"
    precisions: tuple[str, ...] = (
        "fp32",
        "fp16",
        "int8",
    )  # float16 to see what it does to the scores: it is slower here
    half = False

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        onnx.save(rounded(graph), folder / GRAPH)
        return {"max_batch": options.max_batch}

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "OnnxRuntimeRunner":
        return OnnxRuntimeRunner(folder / GRAPH, settings["max_batch"])


class OnnxRuntimeRunner:
    """An inference session on all cores."""

    def __init__(self, model: Path, max_batch: int) -> None:
        self.max_batch = max_batch
        try:
            self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load {model}: {error}") from error
        self.has_class_maps = "class_maps" in [output.name for output in self._session.get_outputs()]

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        try:
            results = self._session.run(names, {"images": images})
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed; build with a lower --max-batch if memory is short: {error}"
            ) from error
        return Outputs(results[0], results[1] if len(results) > 1 else None)

    def close(self) -> None:
        self._session = None
