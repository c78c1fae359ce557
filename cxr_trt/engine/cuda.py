"""The little of CUDA that an engine needs: the first GPU, streams, and buffers on both sides of the bus.

Two implementations, PyCUDA where it can be imported and cuda-core everywhere else. Both use the GPU's primary context,
which is also PyTorch's and TensorRT's, so that their pointers and streams can be mixed. CUDA counts only the GPUs that
CUDA_VISIBLE_DEVICES leaves visible.
"""

import contextlib
import ctypes
import functools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import BackendError

NO_CUDA_CORE = "cuda-core cannot be imported ({}): run pip install 'cxr-trt[tensorrt]'"
NO_DRIVER = "no NVIDIA driver was found: install it, or start the container with its GPUs (docker run --gpus all)"
NO_GPU = "the NVIDIA driver shows no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"


class Memory(NamedTuple):
    """Device memory in bytes; `free` is what the driver says, and other processes share it."""

    total: int
    free: int


class Buffer(Protocol):
    """`host`: a page-locked array; `pointer`: the address of device memory of the same size. Gone after `close`."""

    host: npt.NDArray[Any]
    pointer: int

    def close(self) -> None: ...


class Stream(Protocol):
    """A CUDA stream; `handle` is its cudaStream_t. The copies return before they are done."""

    handle: int

    def upload(self, buffer: Buffer, rows: int) -> None:
        """Copy the first `rows` of the host array to the device."""
        ...

    def download(self, buffer: Buffer, rows: int) -> None:
        """Copy the first `rows` from the device to the host array."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        ...

    def close(self) -> None: ...


class Gpu(Protocol):
    """One GPU. Everything below but its names is to be called, and closed, within `with gpu.current():`."""

    name: str
    compute_capability: str  # such as "8.9"

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread. CUDA's errors inside it become BackendError."""
        ...

    def memory(self) -> Memory: ...

    def stream(self) -> Stream: ...

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer: ...


@functools.cache
def gpu() -> Gpu:
    """The first GPU. Raises BackendError: no driver, no GPU, or no cuda-core."""
    try:
        import pycuda.driver
    except ImportError:
        return CudaCoreGpu()
    return PyCudaGpu(pycuda.driver)


def why_no_gpu() -> str | None:
    """None if there is a GPU to compute on; else one sentence that says what is missing."""
    try:
        gpu()
    except BackendError as error:
        return str(error)
    return None


def failed(reason: str) -> BackendError:
    """The error for a call of CUDA's that failed, with what to do if memory ran out."""
    short = "memory" in reason.replace("_", " ").lower()
    hint = ": close what else uses the GPU, or build with a lower --max-batch" if short else ""
    return BackendError(f"CUDA failed, {reason.rstrip('.')}{hint}")


class CudaCoreGpu:
    """cuda-core for the device, its streams and its memory; the driver's own functions for copies."""

    def __init__(self) -> None:
        try:
            from cuda import core
            from cuda.bindings import driver
            from cuda.core._utils.cuda_utils import CUDAError  # cuda-core 1.2 has no public name for it
        except ImportError as error:
            raise BackendError(NO_CUDA_CORE.format(error)) from error
        self._core, self._driver, self._error = core, driver, CUDAError
        try:
            (status,) = driver.cuInit(0)
        except RuntimeError as error:  # libcuda is not there
            raise BackendError(NO_DRIVER) from error
        if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
            raise BackendError(NO_GPU)
        check(driver, (status,))
        if check(driver, driver.cuDeviceGetCount()) == 0:
            raise BackendError(NO_GPU)
        device = core.Device(0)
        self.name = str(device.name)
        self.compute_capability = "{}.{}".format(*device.compute_capability)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._core.Device(0).set_current()
            yield
        except self._error as error:
            raise failed(str(error)) from error

    def memory(self) -> Memory:
        free, total = check(self._driver, self._driver.cuMemGetInfo())
        return Memory(total, free)

    def stream(self) -> "CudaCoreStream":
        return CudaCoreStream(self._driver, self._core.Device(0).create_stream())

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> "CudaCoreBuffer":
        return CudaCoreBuffer(self._core, shape, np.dtype(dtype))


def check(driver: Any, result: tuple[Any, ...]) -> Any:
    """What a function of cuda.bindings.driver returned, without its status: one value or a tuple.

    Raises:
        BackendError: the status is not CUDA_SUCCESS.
    """
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise failed(status.name)
    return values[0] if len(values) == 1 else tuple(values)


class CudaCoreStream:
    """See `Stream`."""

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        self.handle = int(stream.handle)

    def upload(self, buffer: Buffer, rows: int) -> None:
        host = buffer.host[:rows]
        copy = self._driver.cuMemcpyHtoDAsync
        check(self._driver, copy(buffer.pointer, host.ctypes.data, host.nbytes, self.handle))

    def download(self, buffer: Buffer, rows: int) -> None:
        host = buffer.host[:rows]
        copy = self._driver.cuMemcpyDtoHAsync
        check(self._driver, copy(host.ctypes.data, buffer.pointer, host.nbytes, self.handle))

    def synchronize(self) -> None:
        self._stream.sync()

    def close(self) -> None:
        self._stream.close()


class CudaCoreBuffer:
    """See `Buffer`."""

    def __init__(self, core: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        device, size = core.Device(0), math.prod(shape) * dtype.itemsize
        self._memory = device.allocate(size, stream=device.default_stream)
        device.default_stream.sync()  # the allocation is ordered by that stream, its use by others
        self._pinned = core.LegacyPinnedMemoryResource().allocate(size)
        block = (ctypes.c_ubyte * size).from_address(int(self._pinned.handle))
        self.host: npt.NDArray[Any] = np.frombuffer(memoryview(block), dtype).reshape(shape)
        self.pointer = int(self._memory.handle)

    def close(self) -> None:
        del self.host
        self._memory.close()
        self._pinned.close()


class PyCudaGpu:
    """PyCUDA. Its streams and buffers must be freed where the context is current, so they are never left to chance."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise BackendError(NO_GPU)
            device = driver.Device(0)
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise BackendError(f"PyCUDA finds no usable GPU ({error}): check nvidia-smi") from error
        self.name = str(device.name())
        self.compute_capability = "{}.{}".format(*device.compute_capability())

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()
        except self._driver.Error as error:
            raise failed(str(error)) from error

    def memory(self) -> Memory:
        free, total = self._driver.mem_get_info()
        return Memory(total, free)

    def stream(self) -> "PyCudaStream":
        return PyCudaStream(self._driver)

    def buffer(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> "PyCudaBuffer":
        return PyCudaBuffer(self._driver, shape, np.dtype(dtype))


class PyCudaStream:
    """See `Stream`."""

    def __init__(self, driver: Any) -> None:
        self._driver, self._stream = driver, driver.Stream()
        self.handle = int(self._stream.handle)

    def upload(self, buffer: Buffer, rows: int) -> None:
        self._driver.memcpy_htod_async(buffer.pointer, buffer.host[:rows], self._stream)

    def download(self, buffer: Buffer, rows: int) -> None:
        self._driver.memcpy_dtoh_async(buffer.host[:rows], buffer.pointer, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        del self._stream


class PyCudaBuffer:
    """See `Buffer`."""

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._memory = driver.mem_alloc(math.prod(shape) * dtype.itemsize)
        self.host: npt.NDArray[Any] = driver.pagelocked_empty(shape, dtype)
        self.pointer = int(self._memory)

    def close(self) -> None:
        self._memory.free()
        del self.host
