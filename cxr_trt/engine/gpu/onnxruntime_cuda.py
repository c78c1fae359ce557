"""ONNX Runtime's CUDA provider: for GPUs on which TensorRT is not installed, or cannot be."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx

from cxr_trt.engine.backend import BuildOptions, LayerTime, Outputs, Pending
from cxr_trt.engine.gpu.cuda_versions import NO_DRIVER, driver_cuda, install_command, installed_packages, is_jetson
from cxr_trt.engine.onnxruntime_layers import time_layers
from cxr_trt.errors import BackendError
from cxr_trt.export.session import first_line
from cxr_trt.nvtx_range import nvtx_range
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    import onnxruntime

ENGINE_FILE = "engine.onnx"
PACKAGE = "onnxruntime-gpu"
TF32_SETTING = "tf32"


class CudaBackend:
    """See `Backend`. Engines run on any GPU that ONNX Runtime has kernels for."""

    name = "cuda"
    provider = "CUDAExecutionProvider"
    default_max_batch = 8
    # not yet measured to be faster on any GPU:
    share_crops = chunk_concats = rewrite_networks = crops_in_turn = int8_features = False
    precisions: tuple[str, ...] = ("fp32", "tf32", "fp16")
    layouts: tuple[str, ...] = ()
    on_cpu = sets_float16 = False

    def why_not_build(self) -> str | None:
        import onnxruntime  # here: an engine that another backend runs opens sooner

        if self.provider in onnxruntime.get_available_providers():
            return None
        if is_jetson():
            return "ONNX Runtime has no CUDA provider for a Jetson on PyPI: use --backend tensorrt"
        if found := installed_packages().get(PACKAGE):
            return (
                f"onnxruntime, which has no CUDA provider, lies over {PACKAGE}: "
                f"run pip install --force-reinstall --no-deps {PACKAGE}=={found}"
            )
        return f"ONNX Runtime's CUDA provider is not installed: run {install_command(self.name, driver_cuda())}"

    def why_not_run(self) -> str | None:
        return self.why_not_build() or (NO_DRIVER if driver_cuda() is None else None)

    def version(self) -> str:
        import onnxruntime

        return str(onnxruntime.__version__)

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> dict[str, Any]:
        if reason := self.why_not_build():
            raise BackendError(reason)
        onnx.save(graph, folder / ENGINE_FILE)
        return {"max_batch": options.max_batch, TF32_SETTING: options.tf32}

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        return self.why_not_run()

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> "CudaRunner":
        if reason := self.why_not_run():
            raise BackendError(reason)
        import onnxruntime

        session = self._session(folder, settings, onnxruntime.SessionOptions())
        return CudaRunner(session, settings["max_batch"])

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        """What launching a layer takes, not what the GPU takes for it: ONNX Runtime does not wait for a layer's end."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        return time_layers(options, lambda: self._session(folder, settings, options), image, runs)

    def _session(
        self, folder: Path, settings: Mapping[str, Any], options: "onnxruntime.SessionOptions"
    ) -> "onnxruntime.InferenceSession":
        import onnxruntime

        try:
            session = onnxruntime.InferenceSession(
                str(folder / ENGINE_FILE), options, providers=[(self.provider, self._provider_options(settings))]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"ONNX Runtime cannot load {folder / ENGINE_FILE}: {first_line(error)}") from error
        if session.get_providers()[0] != self.provider:  # it falls back to the CPU without an error
            raise BackendError(
                "ONNX Runtime cannot use the GPU, mostly because its libraries of CUDA or cuDNN are missing: run "
                + install_command(self.name, driver_cuda())
            )
        return session

    def _provider_options(self, settings: Mapping[str, Any]) -> dict[str, str]:
        return {"use_tf32": str(int(settings[TF32_SETTING]))}


class CudaRunner:
    """See `Runner`. One batch is computed while the next one is put together."""

    in_flight = 2

    def __init__(self, session: "onnxruntime.InferenceSession", max_batch: int) -> None:
        self._session, self.max_batch = session, max_batch
        self.has_class_maps = "class_maps" in [output.name for output in session.get_outputs()]
        self._thread = ThreadPoolExecutor(1)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        future = self._thread.submit(self._infer, names, np.stack(images)[:, None])

        def collect() -> Outputs:
            try:
                with nvtx_range("wait"):
                    values = future.result()
            except Exception as error:
                raise BackendError(
                    f"ONNX Runtime failed ({first_line(error)}); build with a lower --max-batch if memory is short"
                ) from error
            return Outputs(values[0], values[1] if class_maps else None)

        return collect

    def _infer(self, names: list[str], images: npt.NDArray[np.uint8]) -> Any:
        with nvtx_range("infer"):  # with the copies to the GPU and back
            return self._session.run(names, {"images": images})

    def close(self) -> None:
        self._thread.shutdown()
        del self._session
