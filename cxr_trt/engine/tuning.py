"""How a CPU engine uses the processors: timed on the machine that it is built on."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cxr_trt.engine.backend import Backend, Way
from cxr_trt.export.pictures import check_pictures
from cxr_trt.spec import Specification

MOST_STREAMS = 8
ROUNDS = 3
WORTH = 0.95  # of the time of one stream: several must take less, for an X-ray alone takes longer with them


def ways(max_batch: int | None) -> list[Way]:
    """The ways that are timed, one stream first: streams that divide the processors evenly, with one X-ray for each.

    Args:
        max_batch: X-rays in a call, if that is fixed; streams then divide it.
    """
    processors = len(os.sched_getaffinity(0))
    numbers = [n for n in range(1, MOST_STREAMS + 1) if processors % n == 0]
    if max_batch is None:
        return [Way(1, 1), Way(1, 2), *(Way(n, n) for n in numbers[1:])]
    return [Way(n, max_batch) for n in numbers if max_batch % n == 0]


def tuned(
    backend: Backend,
    folder: Path,
    spec: Specification,
    settings: Mapping[str, Any],
    tried: Sequence[Way],
    report: Callable[[str, float], None],
) -> dict[str, Any]:
    """Time an engine that was built into `folder` in several ways, in turn.

    Returns:
        What becomes of `settings`: `max_batch` and `streams` of the best way, and `tuning`, the median seconds an X-ray
        of all of them, by "streams x X-rays in each".

    Raises:
        BackendError: the engine cannot be opened, or fails.
    """
    seconds: dict[Way, list[float]] = {way: [] for way in tried}
    with ExitStack() as stack:
        runners = {}
        for way in tried:
            runners[way] = backend.open(folder, spec, {**settings, **way._asdict()})
            stack.callback(runners[way].close)
        for number in range(ROUNDS + 1):  # the first does not count
            for way, runner in runners.items():
                images = np.repeat(check_pictures(spec.image_size)[:1], way.max_batch, 0)
                start = time.perf_counter()
                runner.run(images, class_maps=False)
                if number:
                    seconds[way].append((time.perf_counter() - start) / way.max_batch)
            report("tune", (number + 1) / (ROUNDS + 1))
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    best = choose(medians)
    named = {f"{way.streams} x {way.max_batch // way.streams}": round(value, 4) for way, value in medians.items()}
    return {**settings, **best._asdict(), "tuning": named}


def choose(seconds: Mapping[Way, float]) -> Way:
    """The fastest way, if it takes at least 5 % less time an X-ray than the first."""
    first, best = next(iter(seconds)), min(seconds, key=seconds.__getitem__)
    return best if seconds[best] <= WORTH * seconds[first] else first
