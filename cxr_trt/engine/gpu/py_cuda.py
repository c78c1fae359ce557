"""CUDA through PyCUDA. See `cxr_trt.engine.gpu.cuda`.

PyCUDA's streams and memory must be freed while the context is current, so they are never left to the garbage collector.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.gpu.cuda import NO_GPU, Memory, failed, free_memory
from cxr_trt.engine.gpu.driver_graphs import DriverGraph, capture
from cxr_trt.errors import BackendError

NO_PYCUDA = "PyCUDA cannot be imported ({}): run pip install 'cxr-trt[pycuda]'"


def gpus() -> tuple["PyCudaGpu", ...]:
    """All GPUs. Raises BackendError: no PyCUDA, or no GPU that can be used."""
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise BackendError(NO_PYCUDA.format(error)) from error
    try:
        driver.init()
        found = tuple(PyCudaGpu(driver, index) for index in range(driver.Device.count()))
    except driver.Error as error:
        raise BackendError(f"PyCUDA finds no usable GPU ({error}): check nvidia-smi") from error
    if not found:
        raise BackendError(NO_GPU)
    return found


class PyCudaGpu:
    """See `Gpu`."""

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        device = driver.Device(index)
        self._context = device.retain_primary_context()
        self.name = str(device.name())
        self.compute_capability = "{}.{}".format(*device.compute_capability())
        self.pci_bus_id = str(device.pci_bus_id())
        attributes = driver.device_attribute
        self.multiprocessors = int(device.get_attribute(attributes.MULTIPROCESSOR_COUNT))
        self._is_integrated = bool(device.get_attribute(attributes.INTEGRATED))

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
        return Memory(total, free_memory(free, total, is_integrated=self._is_integrated))

    def stream(self) -> "PyCudaStream":
        return PyCudaStream(self._driver)

    def event(self) -> "PyCudaEvent":
        return PyCudaEvent(self._driver)

    def device_block(self, size: int) -> "PyCudaBlock":
        return PyCudaBlock(self._driver, size)

    def host_block(self, size: int) -> "PyCudaHostBlock":
        return PyCudaHostBlock(self._driver, size)


class PyCudaStream:
    """See `Stream`."""

    def __init__(self, driver: Any) -> None:
        self._driver, self._stream = driver, driver.Stream()
        self.handle = int(self._stream.handle)

    def upload(self, source: npt.NDArray[Any], pointer: int) -> None:
        self._driver.memcpy_htod_async(pointer, source, self._stream)

    def download(self, pointer: int, target: npt.NDArray[Any]) -> None:
        self._driver.memcpy_dtoh_async(target, pointer, self._stream)

    def record(self, event: Any) -> None:
        event.event.record(self._stream)

    def wait(self, event: Any) -> None:
        self._stream.wait_for_event(event.event)

    def capture(self, work: Callable[[], None]) -> DriverGraph:
        return capture(self.handle, work)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        del self._stream


class PyCudaEvent:
    """See `Event`."""

    def __init__(self, driver: Any) -> None:
        self.event = driver.Event(driver.event_flags.DISABLE_TIMING | driver.event_flags.BLOCKING_SYNC)

    def synchronize(self) -> None:
        self.event.synchronize()

    def close(self) -> None:
        del self.event


class PyCudaBlock:
    """See `Block`."""

    def __init__(self, driver: Any, size: int) -> None:
        self._memory = driver.mem_alloc(size)
        self.pointer = int(self._memory)

    def close(self) -> None:
        self._memory.free()


class PyCudaHostBlock:
    """See `HostBlock`."""

    def __init__(self, driver: Any, size: int) -> None:
        self.array: npt.NDArray[np.uint8] = driver.pagelocked_empty((size,), np.uint8)

    def close(self) -> None:
        del self.array
