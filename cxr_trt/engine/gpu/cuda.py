"""The little of CUDA that an engine needs: GPUs, streams, events, graphs, and memory on both sides of the bus.

Two implementations, PyCUDA where it can be imported and cuda-core everywhere else. Both use a GPU's primary context,
which is also PyTorch's and TensorRT's, so that their pointers and streams can be mixed. CUDA counts only the GPUs that
CUDA_VISIBLE_DEVICES leaves visible.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import BackendError

DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))  # on a card's machine, on a Jetson
NO_GPU = "the NVIDIA driver shows no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"


class Memory(NamedTuple):
    """Device memory in bytes; `free` is what the driver says, and other processes share it."""

    total: int
    free: int


class Block(Protocol):
    """Device memory at an address; gone after `close`."""

    pointer: int

    def close(self) -> None: ...


class HostBlock(Protocol):
    """Page-locked memory of the host, uint8 [size]; gone after `close`."""

    array: npt.NDArray[np.uint8]

    def close(self) -> None: ...


class Event(Protocol):
    """A mark in a stream. Nothing waits for one that was never recorded."""

    def synchronize(self) -> None:
        """Wait until all that was in the stream before the mark is done."""
        ...

    def close(self) -> None: ...


class Graph(Protocol):
    """Work that was captured once, to be launched with one call."""

    def launch(self, stream: "Stream") -> None: ...

    def close(self) -> None: ...


class Stream(Protocol):
    """A CUDA stream; `handle` is its cudaStream_t. All but `synchronize` returns before it is done."""

    handle: int

    def upload(self, source: npt.NDArray[Any], pointer: int) -> None:
        """Copy a contiguous page-locked array to the device."""
        ...

    def download(self, pointer: int, target: npt.NDArray[Any]) -> None:
        """Copy from the device into a contiguous page-locked array."""
        ...

    def record(self, event: Event) -> None: ...

    def wait(self, event: Event) -> None:
        """Let what follows in this stream wait until the event's mark is reached."""
        ...

    def capture(self, work: Callable[[], None]) -> Graph | None:
        """What `work` puts into this stream, as a graph, not done yet; None where graphs cannot be had.

        Raises what `work` raises; nothing is then captured.
        """
        ...

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        ...

    def close(self) -> None: ...


class Gpu(Protocol):
    """One GPU. Everything below but its names is to be called, and closed, within `with gpu.current():`."""

    name: str
    compute_capability: str  # such as "8.9"
    pci_bus_id: str  # such as "0000:65:00.0"

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread. CUDA's errors inside it become BackendError."""
        ...

    def memory(self) -> Memory: ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def device_block(self, size: int) -> Block:
        """Device memory of `size` bytes, aligned to at least 256."""
        ...

    def host_block(self, size: int) -> HostBlock: ...


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """All GPUs, at least one. Raises BackendError: no driver, no GPU, or no cuda-core."""
    try:
        import pycuda.driver
    except ImportError:
        from cxr_trt.engine.gpu import cuda_core

        return cuda_core.gpus()
    from cxr_trt.engine.gpu import py_cuda

    return py_cuda.gpus(pycuda.driver)


def gpu() -> Gpu:
    """The first GPU. Raises BackendError as `gpus` does."""
    return gpus()[0]


def why_no_gpu() -> str | None:
    """None if there is a GPU to compute on; else one sentence that says what is missing."""
    try:
        gpus()
    except BackendError as error:
        return str(error)
    return None


def driver_is_here() -> bool:
    """Whether there is an NVIDIA driver, as far as files tell: without cuda-core, `gpus` cannot say."""
    return any(path.exists() for path in DRIVER_FILES)


def failed(reason: str) -> BackendError:
    """The error for a call of CUDA's that failed, with what to do if memory ran out."""
    short = "memory" in reason.replace("_", " ").lower()
    hint = ": close what else uses the GPU, or build with a lower --max-batch" if short else ""
    return BackendError(f"CUDA failed, {reason.rstrip('.')}{hint}")
