"""A backend whose engines run on a simulated GPU: everything is TensorRT's path but TensorRT and CUDA.

ONNX Runtime computes an engine's graph on the CPU where the GPU's stream would.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from simulated_gpu import SimulatedGpu, SimulatedNetwork

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.gpu.pipeline import GpuRunner, Tensor
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend
from cxr_trt.errors import BackendError
from cxr_trt.spec import Specification

ENGINE_FILE = "engine.onnx"


class SimulatedBackend(TensorRTBackend):
    """TensorRT's, but for building and opening engines.

    Attributes:
        latency: seconds that a batch takes, by the engine's precision; nobody waits for them, they only add to `clock`.
        clock: seconds that were spent so far.
        refused: the precisions that cannot be built.
        built: the precision of every build.
        most_open: the largest number of engines that were open at the same time.
    """

    default_max_batch = 2

    def __init__(self, latency: Mapping[str, float], refused: tuple[str, ...] = ()) -> None:
        super().__init__("tensorrt")
        self.latency, self.refused, self.clock = latency, refused, 0.0
        self.built: list[str] = []
        self.most_open = self._open = 0

    def why_not_build(self) -> None:
        return None

    def why_not_run(self) -> None:
        return None

    def version(self) -> str:
        return "1"

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        operators = {node.op_type for node in graph.graph.node}
        types = {tensor.data_type for tensor in graph.graph.initializer}
        precision = "tf32" if options.tf32 else "fp16" if onnx.TensorProto.FLOAT16 in types else "fp32"
        precision = "int8" if "QuantizeLinear" in operators else precision
        self.built.append(precision)
        if precision in self.refused:
            raise BackendError(f"no kernel for {precision}")
        onnx.save(graph, folder / ENGINE_FILE)
        return {"max_batch": options.max_batch, "computes": precision}

    def why_not_open(self, settings: Mapping[str, Any]) -> None:
        return None

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> GpuRunner:
        gpu = SimulatedGpu()
        with gpu.current():
            network = OnnxNetwork(gpu, folder / ENGINE_FILE, settings["max_batch"])
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        latency = self.latency[settings["computes"]]
        network.on_compute, network.on_close = partial(self._spend, latency), self._closed
        return GpuRunner(gpu, network)

    def _spend(self, seconds: float) -> None:
        self.clock += seconds

    def _closed(self) -> None:
        self._open -= 1


class OnnxNetwork(SimulatedNetwork):
    """Computes a graph with ONNX Runtime."""

    def __init__(self, gpu: SimulatedGpu, path: Path, max_batch: int) -> None:
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        super().__init__(gpu, max_batch, size=self._session.get_inputs()[0].shape[-1])
        self.on_compute: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None
        outputs = {output.name: tuple(output.shape[1:]) for output in self._session.get_outputs()}
        self.tensors = {
            "images": self.tensors["images"],
            **{name: Tensor(shape, np.dtype(np.float32)) for name, shape in outputs.items()},
        }

    def compute(self, images: npt.NDArray[np.uint8]) -> Mapping[str, npt.NDArray[np.float32]]:
        self.on_compute()
        names = [name for name in self.tensors if name != "images"]
        return dict(zip(names, self._session.run(names, {"images": images}), strict=True))

    def close(self) -> None:
        super().close()
        self.on_close()
