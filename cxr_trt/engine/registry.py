"""The backends by name, fastest first, and the choice among them."""

from cxr_trt.engine.backend import Backend
from cxr_trt.engine.onnxruntime import OnnxRuntimeBackend
from cxr_trt.engine.openvino import OpenVinoBackend
from cxr_trt.engine.tensorrt import TensorRTBackend
from cxr_trt.errors import BackendError

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        TensorRTBackend("tensorrt"),
        TensorRTBackend("tensorrt_rtx"),
        OpenVinoBackend(),
        OnnxRuntimeBackend(),
    )
}


def choose_backend(name: str) -> Backend:
    """The backend of that name; for "auto", the first that can both build and run here.

    Raises:
        BackendError: the named backend cannot build here; the sentence says what is missing.
    """
    if name == "auto":
        return next(backend for backend in BACKENDS.values() if not (backend.why_not_build() or backend.why_not_run()))
    backend = BACKENDS[name]
    if reason := backend.why_not_build():
        raise BackendError(reason)
    return backend
