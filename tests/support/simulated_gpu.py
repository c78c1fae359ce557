"""A GPU that does what CUDA promises and no more: streams that work later, in order; memory that is limited.

Each stream is a thread. A copy reads its source when its turn comes, not when it is asked for, so a buffer that is
filled too early shows as wrong results. Every call can be told to fail. What is used after it was given back, or not
given back at all, is an error.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.gpu.cuda import Memory, failed
from cxr_trt.engine.gpu.pipeline import Tensor

Work = Callable[[], None]


class SimulatedGpu:
    """See `cxr_trt.engine.gpu.cuda.Gpu`.

    Attributes:
        calls: the names of all calls so far.
        fails: given the name of a call and how many of that name there were, whether it fails.
        latency: seconds that a copy or computation takes.
        open: what was made and not closed.
    """

    name, compute_capability, pci_bus_id = "Simulated", "9.9", "ffff:ff:1f.0"
    multiprocessors = 4

    def __init__(self, free: int = 1 << 26, latency: float = 0.0, graphs: bool = True) -> None:
        self.latency, self.graphs = latency, graphs
        self.calls: list[str] = []
        self.fails: Callable[[str, int], bool] = lambda name, number: False
        self.open: set[Any] = set()
        self.busy: list[tuple[str, float, float]] = []  # what a stream did, from when to when
        self._free, self._is_current = free, threading.local()
        self._blocks: dict[int, npt.NDArray[np.uint8]] = {}
        self._next = 1 << 20

    def call(self, name: str) -> None:
        assert getattr(self._is_current, "depth", 0), f"{name} where the GPU is not current"
        self.calls.append(name)
        if self.fails(name, self.calls.count(name)):
            raise failed(f"CUDA_ERROR_IN_{name.upper()}")

    @contextmanager
    def current(self) -> Iterator[None]:
        self._is_current.depth = getattr(self._is_current, "depth", 0) + 1
        try:
            yield
        finally:
            self._is_current.depth -= 1

    def memory(self) -> Memory:
        self.call("memory")
        return Memory(2 * self._free, self._free)

    def stream(self) -> "SimulatedStream":
        self.call("stream")
        return SimulatedStream(self)

    def event(self) -> "SimulatedEvent":
        self.call("event")
        return SimulatedEvent(self)

    def device_block(self, size: int) -> "SimulatedBlock":
        self.call("device_block")
        if size > self._free:
            raise failed("CUDA_ERROR_OUT_OF_MEMORY")
        return SimulatedBlock(self, size)

    def host_block(self, size: int) -> "SimulatedHostBlock":
        self.call("host_block")
        return SimulatedHostBlock(self, size)

    def take(self, size: int) -> int:
        pointer = self._next
        self._blocks[pointer] = np.full(size, 0xA5, np.uint8)
        self._next += size + 256 - size % 256 + 4096  # never the same address twice
        return pointer

    def drop(self, pointer: int) -> None:
        del self._blocks[pointer]

    def bytes_at(self, pointer: int, size: int) -> npt.NDArray[np.uint8]:
        """Device memory, which must be there and aligned."""
        assert pointer % 256 == 0, f"{pointer} is not aligned"
        for start, block in self._blocks.items():
            if start <= pointer and pointer + size <= start + len(block):
                return block[pointer - start : pointer - start + size]
        raise AssertionError(f"no memory of {size} bytes at {pointer}")


class Closable:
    """Known to its GPU as open until it is closed, once."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self._gpu = gpu
        gpu.open.add(self)

    def close(self) -> None:
        self._gpu.call(f"close {type(self).__name__}")
        self._gpu.open.remove(self)


class SimulatedEvent(Closable):
    """Waiting takes the record that was the latest when it was asked for."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__(gpu)
        self.mark = threading.Event()
        self.mark.set()  # nothing waits for an event that was never recorded

    def synchronize(self) -> None:
        self._gpu.call("event synchronize")
        assert self.mark.wait(10), "the event is never reached"


class SimulatedStream(Closable):
    """See `cxr_trt.engine.gpu.cuda.Stream`."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__(gpu)
        self.handle = id(self)
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._captured: list[Callable[[], Work]] | None = None
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)

    def put(self, what: str, work: Work, at_launch: Callable[[], Work] | None = None) -> None:
        """Do `work` when its turn comes; a graph that captured it does what `at_launch` returns at its launch."""
        if self._captured is not None:
            self._captured.append(at_launch or (lambda: work))
            return

        def timed() -> None:
            start = time.perf_counter()
            time.sleep(self._gpu.latency)
            work()
            self._gpu.busy.append((what, start, time.perf_counter()))

        self._work.put(timed)

    def upload(self, source: npt.NDArray[Any], pointer: int) -> None:
        self._gpu.call("upload")
        self.put("upload", lambda: self._copy(source, pointer, up=True))

    def download(self, pointer: int, target: npt.NDArray[Any]) -> None:
        self._gpu.call("download")
        self.put("download", lambda: self._copy(target, pointer, up=False))

    def _copy(self, array: npt.NDArray[Any], pointer: int, *, up: bool) -> None:
        assert array.flags.c_contiguous
        device = self._gpu.bytes_at(pointer, array.nbytes)
        host = array.reshape(-1).view(np.uint8)
        (device if up else host)[:] = host if up else device

    def record(self, event: SimulatedEvent) -> None:
        self._gpu.call("record")
        mark = event.mark = threading.Event()
        self._work.put(mark.set)

    def wait(self, event: SimulatedEvent) -> None:
        self._gpu.call("wait")
        mark = event.mark
        self._work.put(lambda: None if mark.wait(10) else self.errors.append(TimeoutError()))

    def capture(self, work: Work) -> "SimulatedGraph":
        self._gpu.call("capture")
        if not self._gpu.graphs:
            raise failed("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        self._captured = captured = []
        try:
            work()
        finally:
            self._captured = None
        return SimulatedGraph(self._gpu, captured)

    def synchronize(self) -> None:
        self._gpu.call("stream synchronize")
        done = threading.Event()
        self._work.put(done.set)
        assert done.wait(10), "the stream is never empty"

    def close(self) -> None:
        """Not while it works: what its work uses would be given back under it."""
        super().close()
        assert self._work.empty()
        self._work.put(None)
        self._thread.join(10)
        assert not self.errors, self.errors


class SimulatedGraph(Closable):
    """Launches what was captured."""

    def __init__(self, gpu: SimulatedGpu, captured: list[Callable[[], Work]]) -> None:
        super().__init__(gpu)
        self._captured = captured

    def launch(self, stream: SimulatedStream) -> None:
        self._gpu.call("launch")
        launched = [at_launch() for at_launch in self._captured]
        stream.put("compute", lambda: [work() for work in launched] and None)


class SimulatedBlock(Closable):
    """Device memory."""

    def __init__(self, gpu: SimulatedGpu, size: int) -> None:
        super().__init__(gpu)
        self.pointer = gpu.take(size)

    def close(self) -> None:
        super().close()
        self._gpu.drop(self.pointer)


class SimulatedHostBlock(Closable):
    """Page-locked memory; filled with nonsense when it is given back."""

    def __init__(self, gpu: SimulatedGpu, size: int) -> None:
        super().__init__(gpu)
        self.array = np.full(size, 0x5A, np.uint8)

    def close(self) -> None:
        super().close()
        self.array[:] = 0xDD


class SimulatedNetwork(Closable):
    """Probabilities are the mean grey plus k/100 for finding k; class maps the corner times k. See `LoadedPlan`."""

    def __init__(self, gpu: SimulatedGpu, max_batch: int = 4, workspace: int = 1000, size: int = 16) -> None:
        super().__init__(gpu)
        self.max_batch, self._workspace = max_batch, workspace
        float32 = np.dtype(np.float32)
        self.tensors: Mapping[str, Tensor] = {
            "images": Tensor((1, size, size), np.dtype(np.uint8)),
            "probabilities": Tensor((14,), float32),
            "class_maps": Tensor((14, 3, 3), float32),
        }
        self.batches: list[int] = []

    def compute(self, images: npt.NDArray[np.uint8]) -> Mapping[str, npt.NDArray[np.float32]]:
        """The outputs by name, of images [N, 1, size, size]."""
        return dict(zip(("probabilities", "class_maps"), expected(images), strict=True))

    def workspace_size(self, batch: int) -> int:
        return batch * self._workspace

    def context(self, workspace: int, size: int, batch: int | None = None) -> "SimulatedContext":
        self._gpu.call("context")
        return SimulatedContext(self._gpu, self, workspace, size, batch)


class SimulatedContext(Closable):
    """Keeps the shape and the addresses of its last run. What was captured before they changed computes nonsense."""

    def __init__(
        self, gpu: SimulatedGpu, network: SimulatedNetwork, workspace: int, size: int, batch: int | None
    ) -> None:
        super().__init__(gpu)
        self._network, self._workspace, self._size, self._batch = network, workspace, size, batch
        self._state: object = None

    def enqueue(self, batch: int, addresses: Mapping[str, int], stream: Any) -> None:
        self._gpu.call("enqueue")
        assert self._batch in (None, batch)
        self._network.batches.append(batch)
        given = (batch, dict(addresses))
        is_warm = self._state == given
        self._state = given

        def at_launch() -> Work:
            is_defined = is_warm and self._state == given and self in self._gpu.open
            return lambda: self._compute(batch, addresses, is_defined)

        stream.put("compute", lambda: self._compute(batch, addresses, True), at_launch)

    def _compute(self, batch: int, addresses: Mapping[str, int], is_defined: bool) -> None:
        assert self._size >= self._network.workspace_size(batch)
        values = {
            name: self._gpu.bytes_at(addresses[name], batch * int(np.prod(tensor.shape)) * tensor.dtype.itemsize)
            .view(tensor.dtype)
            .reshape(batch, *tensor.shape)
            for name, tensor in self._network.tensors.items()
        }
        workspace = self._gpu.bytes_at(self._workspace, self._size).view()
        workspace[:] = 7  # whatever was there is lost
        for name, output in self._network.compute(values["images"]).items():
            values[name][:] = output
        if not is_defined:
            values["probabilities"][:] = np.nan


def expected(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities [N, 14] and class maps [N, 14, 3, 3] of uint8 [N, 1, size, size]."""
    k = np.arange(14, dtype=np.float32)
    means = images.mean((1, 2, 3), dtype=np.float32)[:, None] / 300
    corner = images[:, :, :3, :3].astype(np.float32)
    return means + k / 100, corner * k[None, :, None, None]
