"""How a CPU engine runs a batch: divided among streams that work side by side, each on its share of the processors."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import OneByOne, Outputs, Way, joined

Streams = Callable[[Sequence[npt.NDArray[np.uint8]], Sequence[str]], list[list[npt.NDArray[np.float32]]]]
"""Runs parts of a batch, each uint8 [n, 1, size, size] and on a stream of its own; gives for each part the outputs of
these names. Raises BackendError."""


def processors() -> int:
    """Logical processors that this process may use."""
    return len(os.sched_getaffinity(0))


def cores(system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may use; where Linux does not say which processors share one, as many as processors."""
    found = set()
    for number in os.sched_getaffinity(0):
        try:
            found.add((system / f"cpu{number}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            found.add(str(number))
    return len(found)


class StreamRunner(OneByOne, ABC):
    """A `Runner` that uses the processors in a given way.

    A batch that would leave half of the streams or more idle, such as an X-ray alone, runs on one stream that has all
    processors. What runs it, and what runs full batches, is compiled when it is first needed. The first small batch
    after full ones is taken for the end of a folder, which is not worth compiling for.
    """

    has_class_maps: bool

    def __init__(self, way: Way) -> None:
        self.way, self.max_batch, self._streams = way, way.max_batch, way.streams
        self._compiled: dict[int, Streams] = {}
        self._small_batches = 0

    @abstractmethod
    def compile(self, streams: int, largest_part: int) -> Streams:
        """For 1 to `streams` parts of 1 to `largest_part` images. Raises BackendError."""

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        streams = self._streams_for(len(images))
        if streams not in self._compiled:
            few = streams < self._streams
            largest_part = self._streams // 2 if few else -(-self.max_batch // self._streams)
            self._compiled[streams] = self.compile(streams, largest_part)
        parts = np.array_split(images, min(len(images), streams))
        names = ["probabilities", "class_maps"] if class_maps else ["probabilities"]
        results = self._compiled[streams](parts, names)
        return joined([Outputs(values[0], values[1] if class_maps else None) for values in results])

    def _streams_for(self, images: int) -> int:
        if 2 * images > self._streams:
            return self._streams
        self._small_batches += 1
        is_end = self._small_batches == 1 and self._streams in self._compiled
        return self._streams if is_end else 1

    def close(self) -> None:
        self._compiled = {}
