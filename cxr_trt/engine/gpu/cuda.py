"""The part of CUDA that an engine needs: GPUs, streams, events, graphs, device memory and page-locked host memory.

Two implementations: cuda-core, and PyCUDA where CXR_TRT_CUDA=pycuda asks for it. Both use a GPU's primary context,
which is also PyTorch's and TensorRT's, so that their pointers and streams can be mixed. CUDA counts only the GPUs that
CUDA_VISIBLE_DEVICES leaves visible.
"""

import functools
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import BackendError

DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))  # on a card's machine, on a Jetson
LIBRARY_VARIABLE, LIBRARIES = "CXR_TRT_CUDA", ("cuda-core", "pycuda")
MEMORY_FILE = Path("/proc/meminfo")
NO_GPU = "the NVIDIA driver shows no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES"


class Memory(NamedTuple):
    """Device memory in bytes. `free` is what can be had; other processes use the same memory."""

    total: int
    free: int


class Block(Protocol):
    """A block of device memory at an address, until `close`."""

    pointer: int

    def close(self) -> None: ...


class HostBlock(Protocol):
    """A block of page-locked host memory, uint8 [size], until `close`."""

    array: npt.NDArray[np.uint8]

    def close(self) -> None: ...


class Event(Protocol):
    """A mark in a stream. Waiting for an event that was never recorded returns at once."""

    def synchronize(self) -> None:
        """Wait until all work that precedes the mark in its stream is done."""
        ...

    def close(self) -> None: ...


class Graph(Protocol):
    """Captured work that is launched with one call."""

    def launch(self, stream: "Stream") -> None: ...

    def close(self) -> None: ...


class Stream(Protocol):
    """A CUDA stream; `handle` is its cudaStream_t. All methods but `synchronize` return before the work is done."""

    handle: int

    def upload(self, source: npt.NDArray[Any], pointer: int) -> None:
        """Copy a contiguous page-locked array to the device."""
        ...

    def download(self, pointer: int, target: npt.NDArray[Any]) -> None:
        """Copy from the device into a contiguous page-locked array."""
        ...

    def record(self, event: Event) -> None: ...

    def wait(self, event: Event) -> None:
        """Make later work in this stream wait until the event's mark is reached."""
        ...

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` puts into this stream as a graph, without running it.

        Raises what `work` raises; in that case nothing is captured.
        """
        ...

    def synchronize(self) -> None:
        """Wait until the stream is empty."""
        ...

    def close(self) -> None: ...


class Gpu(Protocol):
    """One GPU. Everything except its attributes must be called, and closed, inside `with gpu.current():`."""

    name: str
    compute_capability: str  # such as "8.9"
    multiprocessors: int
    pci_bus_id: str  # such as "0000:65:00.0"

    def current(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread. CUDA errors inside the block become BackendError."""
        ...

    def memory(self) -> Memory: ...

    def stream(self) -> Stream: ...

    def event(self) -> Event: ...

    def device_block(self, size: int) -> Block:
        """Device memory of `size` bytes, aligned to at least 256 bytes."""
        ...

    def host_block(self, size: int) -> HostBlock: ...


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """All GPUs, at least one, by cuda-core; by PyCUDA if CXR_TRT_CUDA asks for it, or if it alone is installed.

    Raises:
        BackendError: no driver, no GPU, or neither library.
    """
    asked = os.environ.get(LIBRARY_VARIABLE, "")
    if asked not in ("", *LIBRARIES):
        raise BackendError(f"{LIBRARY_VARIABLE} is {asked!r}; it must be {' or '.join(LIBRARIES)}")
    if asked == "pycuda" or (not asked and _is_installed("pycuda.driver") and not _is_installed("cuda.core")):
        from cxr_trt.engine.gpu import py_cuda

        return py_cuda.gpus()
    from cxr_trt.engine.gpu import cuda_core

    return cuda_core.gpus()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


def gpu() -> Gpu:
    """The first GPU. Raises BackendError as `gpus` does."""
    return gpus()[0]


def why_no_gpu() -> str | None:
    """None if there is a GPU to compute on; otherwise one sentence that says what is missing."""
    try:
        gpus()
    except BackendError as error:
        return str(error)
    return None


def free_memory(reported: int, total: int, *, is_integrated: bool) -> int:
    """The bytes of memory that can be had, given those that the driver reports as free.

    A GPU that shares the processor's memory can also have what the system holds files in, which the driver does not
    count: after reading a folder of X-rays, that may be most of it.
    """
    if not is_integrated:
        return reported
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", MEMORY_FILE.read_text(encoding="ascii"))
    except OSError:
        found = None
    return max(reported, min(total, 1024 * int(found[1]))) if found else reported


def driver_is_here() -> bool:
    """Whether an NVIDIA driver is installed, judged by its files: without cuda-core, `gpus` cannot tell."""
    return any(path.exists() for path in DRIVER_FILES)


def failed(reason: str) -> BackendError:
    """The error for a CUDA call that failed; if memory ran out, it says what to do."""
    is_out_of_memory = "memory" in reason.replace("_", " ").lower()
    hint = "; close other programs that use the GPU, or build with a lower --max-batch" if is_out_of_memory else ""
    return BackendError(f"CUDA failed: {reason.rstrip('.')}{hint}")
