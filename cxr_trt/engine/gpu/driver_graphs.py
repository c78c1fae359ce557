"""CUDA graphs through the driver's own library, for PyCUDA, which has none.

The functions are in every driver from CUDA 12 on (NVIDIA CUDA driver API, stream and graph management).
"""

import ctypes
import functools
from collections.abc import Callable

from cxr_trt.engine.gpu.cuda import Stream, failed
from cxr_trt.engine.gpu.cuda_versions import DRIVER_LIBRARY

CAPTURE_MODE_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class DriverGraph:
    """See `cxr_trt.engine.gpu.cuda.Graph`."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        _call("cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        _call("cuGraphExecDestroy", self._executable)


def capture(stream: int, work: Callable[[], None]) -> DriverGraph:
    """See `cxr_trt.engine.gpu.cuda.Stream.capture`; `stream` is a cudaStream_t."""
    handle, graph, executable = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
    _call("cuStreamBeginCapture_v2", handle, ctypes.c_int(CAPTURE_MODE_THREAD_LOCAL))
    try:
        work()
    except BaseException:
        _library().cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph:
            _library().cuGraphDestroy(graph)
        raise
    _call("cuStreamEndCapture", handle, ctypes.byref(graph))
    try:
        _call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        _call("cuGraphDestroy", graph)
    return DriverGraph(executable)


def _call(function: str, *arguments: object) -> None:
    """Call a function of the driver. Raises BackendError if it fails."""
    code = getattr(_library(), function)(*arguments)
    if code != 0:
        name = ctypes.c_char_p()
        _library().cuGetErrorName(ctypes.c_int(code), ctypes.byref(name))
        raise failed(f"{function}: {name.value.decode() if name.value else f'error {code}'}")


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(DRIVER_LIBRARY)
