"""ONNX Runtime on the CPU: runs the graph as it is; float16 is computed in float32, with each result rounded."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError

from cxr_trt.engine.backend import BuildOptions, LayerTime
from cxr_trt.engine.cpu.config import CpuBackend, CpuConfig
from cxr_trt.engine.cpu.streams import StreamRunner, Streams
from cxr_trt.engine.onnxruntime_layers import time_layers
from cxr_trt.errors import BackendError
from cxr_trt.precision.float16 import rounded_to_float16
from cxr_trt.processors import cores, processors
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    import onnxruntime

ENGINE_FILE = "engine.onnx"
# Layout of feature maps: as ONNX Runtime reorders them (channels in blocks of a vector's width, or last), or unchanged.
REORDERED, NCHW = "reordered", "nchw"


class OnnxRuntimeBackend(CpuBackend):
    """See `Backend`."""

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")  # fp16 is slow here, but shows its effect on the scores
    layouts: tuple[str, ...] = (REORDERED, NCHW)

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        onnx.save(rounded_to_float16(graph), folder / ENGINE_FILE)
        return {"max_batch": options.max_batch, "streams": 1}

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "OnnxRuntimeRunner":
        return OnnxRuntimeRunner(folder / ENGINE_FILE, CpuConfig.from_settings(settings))

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        import onnxruntime

        options, path = session_options(CpuConfig.from_settings(settings), streams=1), str(folder / ENGINE_FILE)
        return time_layers(
            options,
            lambda: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]),
            image,
            runs,
        )


def session_options(config: CpuConfig, streams: int) -> "onnxruntime.SessionOptions":
    """How a session uses the processors and lays out feature maps, if so many streams share the processors."""
    import onnxruntime  # here: an engine that another backend runs opens sooner

    options = onnxruntime.SessionOptions()
    may_use_all = processors() == os.cpu_count()
    # Otherwise ONNX Runtime starts one thread per core and pins each to its core.
    if streams > 1 or config.hyper_threading or not may_use_all:
        threads = processors() if config.hyper_threading else cores()
        options.intra_op_num_threads = max(1, threads // streams)
    if config.layout == NCHW:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return options


class OnnxRuntimeRunner(StreamRunner):
    """One inference session per stream, each with a thread that waits for it."""

    def __init__(self, path: Path, config: CpuConfig) -> None:
        super().__init__(config)
        self._path = path
        try:
            self._model = path.read_bytes()  # kept, because the file may change before more sessions are needed
            graph = onnx.load_model_from_string(self._model).graph
        except (OSError, DecodeError) as error:
            raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
        self._threads = ThreadPoolExecutor(config.streams)
        self.has_class_maps = "class_maps" in [output.name for output in graph.output]
        self.one_by_one = graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1

    def compile(self, streams: int, largest_part: int) -> Streams:
        import onnxruntime

        options = session_options(self.config, streams)
        try:
            sessions = [
                onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
                for _ in range(streams)
            ]
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load {self._path}: {error}") from error
        return partial(self._run, sessions)

    def _run(
        self,
        sessions: "list[onnxruntime.InferenceSession]",
        parts: Sequence[npt.NDArray[np.uint8]],
        names: Sequence[str],
    ) -> list[list[npt.NDArray[np.float32]]]:
        running = [
            self._threads.submit(session.run, names, {"images": part})
            for session, part in zip(sessions, parts, strict=False)
        ]
        try:
            return [future.result() for future in running]
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime failed ({error}); build with a lower --max-batch if memory is short"
            ) from error

    def close(self) -> None:
        super().close()
        self._threads.shutdown()
