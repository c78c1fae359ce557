"""How a CPU engine runs a batch: divided among streams that run side by side, each on its share of the processors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import Outputs, Pending, concat_outputs
from cxr_trt.engine.cpu.config import CpuConfig

Streams = Callable[[Sequence[npt.NDArray[np.uint8]], Sequence[str]], list[list[npt.NDArray[np.float32]]]]
"""Runs the parts of a batch, each uint8 [n, 1, height, width] and on its own stream. Returns the named outputs of each
part. Raises BackendError."""


class StreamRunner(ABC):
    """A `cxr_trt.engine.backend.Runner` that divides each batch among streams and waits for it.

    A batch that would leave at least half of the streams idle, such as a single X-ray, runs on one stream that has all
    processors. Both forms, for small and for full batches, are compiled when they are first needed. The first small
    batch after full ones is taken to be the end of a folder: compiling for it would not pay.
    """

    in_flight = 1
    has_class_maps: bool
    one_by_one = False  # whether the model takes one image at a time, because its network was written for that

    def __init__(self, config: CpuConfig) -> None:
        self.config, self.max_batch = config, config.max_batch
        self._compiled: dict[int, Streams] = {}
        self._small_batches = 0

    @abstractmethod
    def compile(self, streams: int, largest_part: int) -> Streams:
        """Compile for 1 to `streams` parts of 1 to `largest_part` images each. Raises BackendError."""

    def prepare(self, images: int) -> None:
        """Compile now what a batch of so many images needs. Raises BackendError."""
        self._compile(self.config.streams if 2 * images > self.config.streams else 1)

    def _compile(self, streams: int) -> None:
        is_small = streams < self.config.streams
        largest_part = self.config.streams // 2 if is_small else -(-self.max_batch // self.config.streams)
        self._compiled[streams] = self.compile(streams, 1 if self.one_by_one else largest_part)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        streams = self._streams_for(len(images))
        if streams not in self._compiled:
            self._compile(streams)
        parts = np.array_split(np.stack(images)[:, None], len(images) if self.one_by_one else min(len(images), streams))
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        results = []
        for start in range(0, len(parts), streams):
            results += self._compiled[streams](parts[start : start + streams], names)
        outputs = concat_outputs([Outputs(values[0], values[1] if class_maps else None) for values in results])
        return lambda: outputs

    def _streams_for(self, images: int) -> int:
        if 2 * images > self.config.streams:
            return self.config.streams
        self._small_batches += 1
        is_end_of_folder = self._small_batches == 1 and self.config.streams in self._compiled
        return self.config.streams if is_end_of_folder else 1

    def close(self) -> None:
        self._compiled = {}
