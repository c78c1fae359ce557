"""ONNX Runtime on the CPU: runs the graph as it is, and float16 in float32 with each result rounded."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from cxr_trt.engine.backend import BuildOptions, CpuBackend, OneByOne, Outputs, joined
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

    def version(self) -> str:
        return str(onnxruntime.__version__)

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        onnx.save(rounded(graph), folder / GRAPH)
        return {"max_batch": options.max_batch, "streams": 1}

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "OnnxRuntimeRunner":
        return OnnxRuntimeRunner(folder / GRAPH, settings["max_batch"], settings["streams"])


class OnnxRuntimeRunner(OneByOne):
    """On all cores: an inference session, and a thread that waits for it, for each stream."""

    def __init__(self, model: Path, max_batch: int, streams: int) -> None:
        self.max_batch = max_batch
        options = onnxruntime.SessionOptions()
        if streams > 1:
            options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) // streams)
        try:
            self._sessions = [
                onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for _ in range(streams)
            ]
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load {model}: {error}") from error
        self._threads = ThreadPoolExecutor(streams)
        self.has_class_maps = "class_maps" in [output.name for output in self._sessions[0].get_outputs()]

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        parts = np.array_split(images, min(len(images), len(self._sessions)))
        running = [
            self._threads.submit(session.run, names, {"images": part})
            for session, part in zip(self._sessions, parts, strict=False)
        ]
        try:
            results = [future.result() for future in running]
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed; build with a lower --max-batch if memory is short: {error}"
            ) from error
        return joined([Outputs(values[0], values[1] if class_maps else None) for values in results])

    def close(self) -> None:
        self._threads.shutdown()
        self._sessions = []
