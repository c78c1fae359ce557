"""Batches in flight on a GPU: at any time one is copied in, one is computed and one is copied out.

There is one stream for each of the three steps, and events keep them in order. Each batch occupies a slot with its own
page-locked and device memory; the slots take turns. All memory is allocated once, when the engine is opened.
"""

import contextlib
import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import Outputs, Pending
from cxr_trt.engine.gpu.cuda import Block, Event, Gpu, Graph, HostBlock, Stream
from cxr_trt.errors import BackendError
from cxr_trt.nvtx_range import nvtx_range

LOGGER = logging.getLogger(__name__)

INPUT, PROBABILITIES, CLASS_MAPS = "images", "probabilities", "class_maps"
BATCHES_IN_FLIGHT = 3  # one per stream
ALIGNMENT_BYTES = 256  # alignment of every tensor and of the plan's workspace
MAX_SHARE_OF_FREE_MEMORY = 0.9  # of the device memory that is free when an engine is opened


class Tensor(NamedTuple):
    """Shape and type of a tensor for one image, without the batch dimension."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Context(Protocol):
    """Runs a plan in a workspace that contexts share: their computations must follow each other in one stream.

    A context keeps the shapes and addresses that it was last given, and a graph captured from it computes with them.
    """

    def enqueue(self, batch: int, addresses: Mapping[str, int], stream: Stream) -> None:
        """Put the computation of `batch` images into a stream; `addresses` holds the device pointers of all tensors."""
        ...

    def close(self) -> None: ...


class LoadedPlan(Protocol):
    """A loaded plan on one GPU, which does not own memory for activations. Its methods raise BackendError.

    max_batch: the largest number of images that the plan takes.
    tensors: inputs and outputs by name, including INPUT.
    """

    max_batch: int
    tensors: Mapping[str, Tensor]

    def workspace_size(self, batch: int) -> int:
        """Bytes of memory that the activations of a batch need."""
        ...

    def context(self, workspace: int, size: int, batch: int | None = None) -> Context:
        """A new context whose activations lie in the `size` bytes of device memory at `workspace`.

        It is for batches of `batch` images only, and is warmed up by one before it is captured; None means any size.
        """
        ...

    def close(self) -> None: ...


class GpuRunner:
    """A plan on one GPU, with up to `in_flight` batches in flight. See `cxr_trt.engine.backend.Runner`."""

    in_flight = BATCHES_IN_FLIGHT

    def __init__(self, gpu: Gpu, plan: LoadedPlan) -> None:
        """Allocate the memory. Raises BackendError: not even a batch of one image fits, or CUDA failed."""
        self._gpu, self._plan = gpu, plan
        self._tensors = plan.tensors
        self._images_shape = self._tensors[INPUT].shape
        self.has_class_maps = CLASS_MAPS in self._tensors
        self._uses_graphs = True
        with gpu.current(), ExitStack() as resources:
            resources.callback(plan.close)
            self.max_batch = batch_that_fits(plan, gpu.memory().free)
            workspace, slot_size = plan.workspace_size(self.max_batch), _slot_size(self._tensors, self.max_batch)
            host = _closed_by(resources, gpu.host_block(BATCHES_IN_FLIGHT * slot_size))
            device = _closed_by(resources, gpu.device_block(BATCHES_IN_FLIGHT * slot_size + workspace))
            self._new_context = partial(plan.context, device.pointer + BATCHES_IN_FLIGHT * slot_size, workspace)
            self._any_size = _closed_by(resources, self._new_context())
            self._upload, self._compute, self._download = (_closed_by(resources, gpu.stream()) for _ in range(3))
            slots = [
                _Slot(resources, gpu, self._tensors, self.max_batch, host, device, i * slot_size)
                for i in range(BATCHES_IN_FLIGHT)
            ]
            resources.callback(self._wait_for_streams)  # runs first, before anything above is freed
            self._free = deque(slots)
            self._resources = resources.pop_all()

    @property
    def free(self) -> int:
        """How many batches can be submitted before one must be collected."""
        return len(self._free)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start a batch. Call the returned function once to collect it; batches may be collected in any order.

        Raises:
            BackendError: the images do not fit the engine, `in_flight` batches are in flight already, or CUDA failed.
        """
        count, size = len(images), self._images_shape[-2:]
        if not 1 <= count <= self.max_batch or any(i.dtype != np.uint8 or i.shape[-2:] != size for i in images):
            takes = f"uint8 [1 to {self.max_batch}, {', '.join(map(str, self._images_shape))}]"
            given = f"{count} of {images[0].dtype} {list(images[0].shape)}" if count else "none"
            raise BackendError(f"the engine takes {takes}, not {given}")
        if not self._free:
            raise BackendError(f"{BATCHES_IN_FLIGHT} batches are in flight; collect one before submitting the next")
        names = [PROBABILITIES] + [CLASS_MAPS] * (class_maps and self.has_class_maps)
        slot = self._free.popleft()
        try:
            with self._gpu.current():
                with nvtx_range("copy"):
                    source = slot.arrays[INPUT][:count]
                    for target, image in zip(source, images, strict=True):
                        target[...] = image
                    self._upload.upload(source, slot.addresses[INPUT])
                    self._upload.record(slot.uploaded)
                with nvtx_range("infer"):
                    self._compute.wait(slot.uploaded)
                    self._enqueue(slot, count)
                    self._compute.record(slot.computed)
                with nvtx_range("copy"):
                    self._download.wait(slot.computed)
                    for name in names:
                        self._download.download(slot.addresses[name], slot.arrays[name][:count])
                    self._download.record(slot.downloaded)
        except BaseException:
            self._free.append(slot)  # safe, because work for the next batch in this slot follows in the same streams
            raise
        return partial(self._collect, slot, count, names)

    def close(self) -> None:
        """Wait for the batches in flight, and free everything."""
        with self._gpu.current():
            self._resources.close()

    def _collect(self, slot: "_Slot", count: int, names: list[str]) -> Outputs:
        self._free.append(slot)
        with self._gpu.current(), nvtx_range("wait"):
            slot.downloaded.synchronize()
        results = [slot.arrays[name][:count].copy() for name in names]
        return Outputs(results[0], results[1] if len(results) > 1 else None)

    def _enqueue(self, slot: "_Slot", count: int) -> None:
        """Put the computation into its stream: from the second time on as a graph, if it is of a size that comes often.

        Every graph has a context of its own: changing the shapes or addresses of a context would leave what was
        captured from it undefined. TensorRT also requires that a context has run once with its shapes before it is
        captured.
        """
        if count in slot.graphs:
            slot.graphs[count].launch(self._compute)
            return
        context = self._graph_context(slot, count) or self._any_size
        enqueue = partial(context.enqueue, count, slot.addresses, self._compute)
        enqueue()
        if context is not self._any_size:
            with self._graphs_are_optional():
                slot.graphs[count] = self._compute.capture(enqueue)

    def _graph_context(self, slot: "_Slot", count: int) -> Context | None:
        """The context of the graph for batches of `count` images in `slot`; None if there shall be no such graph."""
        if self._uses_graphs and count in (1, self.max_batch) and count not in slot.contexts:
            with self._graphs_are_optional():
                slot.contexts[count] = self._new_context(count)
        return slot.contexts.get(count) if self._uses_graphs else None

    @contextlib.contextmanager
    def _graphs_are_optional(self) -> Iterator[None]:
        """If what happens inside fails, everything is computed without graphs from then on."""
        try:
            yield
        except BackendError as error:
            LOGGER.info("computing without CUDA graphs: %s", error)
            self._uses_graphs = False

    def _wait_for_streams(self) -> None:
        for stream in (self._upload, self._compute, self._download):
            with contextlib.suppress(BackendError):
                stream.synchronize()


class _Slot:
    """Memory and events for one batch in flight, and graphs, each with its context, by batch size."""

    def __init__(
        self,
        resources: ExitStack,
        gpu: Gpu,
        tensors: Mapping[str, Tensor],
        batch: int,
        host: HostBlock,
        device: Block,
        offset: int,
    ) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self.addresses: dict[str, int] = {}
        self.contexts: dict[int, Context] = {}
        self.graphs: dict[int, Graph] = {}
        resources.callback(_close_all, self.contexts)
        resources.callback(_close_all, self.graphs)
        self.uploaded: Event = _closed_by(resources, gpu.event())
        self.computed: Event = _closed_by(resources, gpu.event())
        self.downloaded: Event = _closed_by(resources, gpu.event())
        for name, tensor in tensors.items():
            size = _size(tensor, batch)
            values = host.array[offset : offset + size].view(tensor.dtype)
            self.arrays[name] = values.reshape(batch, *tensor.shape)
            self.addresses[name] = device.pointer + offset
            offset += _aligned(size)
        resources.callback(self.arrays.clear)


class MultiGpuRunner:
    """The same plan on several GPUs: each batch goes to the GPU with the fewest batches in flight."""

    def __init__(self, runners: Sequence[GpuRunner]) -> None:
        self._runners = runners
        self.max_batch = min(runner.max_batch for runner in runners)
        self.in_flight = sum(runner.in_flight for runner in runners)
        self.has_class_maps = runners[0].has_class_maps

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        return max(self._runners, key=lambda runner: runner.free).submit(images, class_maps)

    def close(self) -> None:
        with ExitStack() as stack:  # so that all are closed even if one fails
            for runner in self._runners:
                stack.callback(runner.close)


def batch_that_fits(plan: LoadedPlan, free: int) -> int:
    """The plan's largest batch, halved until it needs at most MAX_SHARE_OF_FREE_MEMORY of `free` bytes; at least 1."""
    batch = plan.max_batch
    while batch > 1 and _bytes_needed(plan, batch) > MAX_SHARE_OF_FREE_MEMORY * free:
        batch //= 2
    if batch < plan.max_batch:
        LOGGER.warning(
            "batches have at most %d X-rays instead of %d, because the GPU has too little free memory",
            batch,
            plan.max_batch,
        )
    return batch


def _bytes_needed(plan: LoadedPlan, batch: int) -> int:
    return BATCHES_IN_FLIGHT * _slot_size(plan.tensors, batch) + plan.workspace_size(batch)


def _slot_size(tensors: Mapping[str, Tensor], batch: int) -> int:
    return sum(_aligned(_size(tensor, batch)) for tensor in tensors.values())


def _size(tensor: Tensor, batch: int) -> int:
    return batch * math.prod(tensor.shape) * tensor.dtype.itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _close_all(resources: Mapping[int, Graph | Context]) -> None:
    for resource in resources.values():
        resource.close()


def _closed_by(resources: ExitStack, resource: Any) -> Any:
    resources.callback(resource.close)
    return resource
