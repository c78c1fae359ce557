"""CUDA through cuda-core (devices and streams) and the driver API (everything else). See `cxr_trt.engine.gpu.cuda`."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.gpu.cuda import NO_GPU, Graph, Memory, Stream, failed, free_memory
from cxr_trt.engine.gpu.cuda_versions import NO_DRIVER, driver_cuda, install_command
from cxr_trt.errors import BackendError

NO_CUDA_CORE = "cuda-core cannot be imported ({}): run {}"


def gpus() -> tuple["CudaCoreGpu", ...]:
    """All GPUs. Raises BackendError: no cuda-core, no driver, or no GPU."""
    try:
        from cuda import core
        from cuda.bindings import driver
        from cuda.core._utils.cuda_utils import CUDAError  # cuda-core 1.2 has no public name for it
    except ImportError as error:
        raise BackendError(NO_CUDA_CORE.format(error, install_command("tensorrt", driver_cuda()))) from error
    try:
        (status,) = driver.cuInit(0)
    except RuntimeError as error:  # libcuda is missing
        raise BackendError(NO_DRIVER) from error
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise BackendError(NO_GPU)
    check(driver, (status,))
    found = tuple(
        CudaCoreGpu(core, driver, CUDAError, index) for index in range(check(driver, driver.cuDeviceGetCount()))
    )
    if not found:
        raise BackendError(NO_GPU)
    return found


def check(driver: Any, result: tuple[Any, ...]) -> Any:
    """Check the status in what a function of cuda.bindings.driver returned, and return the rest: one value or a tuple.

    Raises:
        BackendError: the status is not CUDA_SUCCESS.
    """
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise failed(status.name)
    return values[0] if len(values) == 1 else tuple(values)


class CudaCoreGpu:
    """See `Gpu`."""

    def __init__(self, core: Any, driver: Any, error: type[Exception], index: int) -> None:
        self._core, self._driver, self._error, self._index = core, driver, error, index
        device = core.Device(index)
        self.name = str(device.name)
        self.compute_capability = "{}.{}".format(*device.compute_capability)
        self.pci_bus_id = str(device.pci_bus_id)
        attributes = driver.CUdevice_attribute
        self.multiprocessors = self._attribute(attributes.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        self._is_integrated = bool(self._attribute(attributes.CU_DEVICE_ATTRIBUTE_INTEGRATED))

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        try:
            self._device().set_current()
            yield
        except self._error as error:
            raise failed(str(error)) from error

    def memory(self) -> Memory:
        free, total = check(self._driver, self._driver.cuMemGetInfo())
        return Memory(total, free_memory(free, total, is_integrated=self._is_integrated))

    def stream(self) -> "CudaCoreStream":
        return CudaCoreStream(self._driver, self._device().create_stream())

    def event(self) -> "CudaCoreEvent":
        return CudaCoreEvent(self._driver)

    def device_block(self, size: int) -> "CudaCoreBlock":
        return CudaCoreBlock(self._driver, size)

    def host_block(self, size: int) -> "CudaCoreHostBlock":
        return CudaCoreHostBlock(self._core, size)

    def _attribute(self, attribute: Any) -> int:
        device = check(self._driver, self._driver.cuDeviceGet(self._index))
        return int(check(self._driver, self._driver.cuDeviceGetAttribute(attribute, device)))

    def _device(self) -> Any:
        return self._core.Device(self._index)


class CudaCoreStream:
    """See `Stream`."""

    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver, self._stream = driver, stream
        self.handle = int(stream.handle)

    def upload(self, source: npt.NDArray[Any], pointer: int) -> None:
        copy = self._driver.cuMemcpyHtoDAsync
        check(self._driver, copy(pointer, source.ctypes.data, source.nbytes, self.handle))

    def download(self, pointer: int, target: npt.NDArray[Any]) -> None:
        copy = self._driver.cuMemcpyDtoHAsync
        check(self._driver, copy(target.ctypes.data, pointer, target.nbytes, self.handle))

    def record(self, event: Any) -> None:
        check(self._driver, self._driver.cuEventRecord(event.handle, self.handle))

    def wait(self, event: Any) -> None:
        check(self._driver, self._driver.cuStreamWaitEvent(self.handle, event.handle, 0))

    def capture(self, work: Callable[[], None]) -> Graph:
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        check(driver, driver.cuStreamBeginCapture(self.handle, mode))
        try:
            work()
        except BaseException:
            driver.cuStreamEndCapture(self.handle)
            raise
        graph = check(driver, driver.cuStreamEndCapture(self.handle))
        try:
            return CudaCoreGraph(driver, check(driver, driver.cuGraphInstantiate(graph, 0)))
        finally:
            check(driver, driver.cuGraphDestroy(graph))

    def synchronize(self) -> None:
        self._stream.sync()

    def close(self) -> None:
        self._stream.close()


class CudaCoreEvent:
    """See `Event`."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        flags = driver.CUevent_flags.CU_EVENT_DISABLE_TIMING | driver.CUevent_flags.CU_EVENT_BLOCKING_SYNC
        self.handle = check(driver, driver.cuEventCreate(flags))

    def synchronize(self) -> None:
        check(self._driver, self._driver.cuEventSynchronize(self.handle))

    def close(self) -> None:
        check(self._driver, self._driver.cuEventDestroy(self.handle))


class CudaCoreGraph:
    """See `Graph`."""

    def __init__(self, driver: Any, executable: Any) -> None:
        self._driver, self._executable = driver, executable

    def launch(self, stream: Stream) -> None:
        check(self._driver, self._driver.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        check(self._driver, self._driver.cuGraphExecDestroy(self._executable))


class CudaCoreBlock:
    """See `Block`. Not from the device's default pool, which would keep the memory after it was given back."""

    def __init__(self, driver: Any, size: int) -> None:
        self._driver, self._memory = driver, check(driver, driver.cuMemAlloc(size))
        self.pointer = int(self._memory)

    def close(self) -> None:
        check(self._driver, self._driver.cuMemFree(self._memory))


class CudaCoreHostBlock:
    """See `HostBlock`."""

    def __init__(self, core: Any, size: int) -> None:
        self._pinned = core.LegacyPinnedMemoryResource().allocate(size)
        block = (ctypes.c_ubyte * size).from_address(int(self._pinned.handle))
        self.array: npt.NDArray[np.uint8] = np.frombuffer(memoryview(block), np.uint8)

    def close(self) -> None:
        del self.array
        self._pinned.close()
