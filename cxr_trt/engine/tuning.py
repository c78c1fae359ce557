"""How a CPU engine uses the processors: timed on the machine that it is built on."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cxr_trt.engine.backend import Backend, Way
from cxr_trt.engine.streams import cores, processors
from cxr_trt.export.pictures import check_pictures
from cxr_trt.spec import Specification

MOST_STREAMS = 8
ROUNDS = 3
WORTH = 0.95  # of the time of the first: another must take less


def ways(max_batch: int | None) -> list[Way]:
    """The ways that are timed, one stream first: streams that divide the cores evenly, with one X-ray for each.

    Args:
        max_batch: X-rays in a call, if that is fixed; streams then divide it.
    """
    here = cores()
    numbers = [n for n in range(1, MOST_STREAMS + 1) if here % n == 0]
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
    """Time an engine that was built into `folder`: the ways of `tried`, then the best with more threads and layouts.

    Returns:
        What becomes of `settings`: the best way, and `tuning`, the median seconds an X-ray of all that was timed.

    Raises:
        BackendError: the engine cannot be opened, or fails.
    """
    tuning = {}

    def best_of(what: str, candidates: Mapping[str, Way]) -> Way:
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        seconds = timed(backend, folder, spec, settings, candidates, lambda done: report(f"time {what}", done))
        tuning[what] = seconds
        return candidates[choose(seconds)]

    way = best_of("streams x X-rays in each", {f"{w.streams} x {w.max_batch // w.streams}": w for w in tried})
    if processors() > cores():
        both = {"each core": way, "each logical processor": way._replace(hyper_threading=True)}
        way = best_of("a thread for", both)
    if backend.layouts:
        usual, *others = backend.layouts
        way = best_of("layout", {usual: way, **{layout: way._replace(layout=layout) for layout in others}})
    return {**settings, **way.settings, "tuning": tuning}


def timed(
    backend: Backend,
    folder: Path,
    spec: Specification,
    settings: Mapping[str, Any],
    candidates: Mapping[str, Way],
    report: Callable[[float], None],
) -> dict[str, float]:
    """Median seconds an X-ray of each candidate in full batches, in turn, after a round that does not count."""
    seconds: dict[str, list[float]] = {label: [] for label in candidates}
    with ExitStack() as stack:
        runners = {}
        for label, way in candidates.items():
            runners[label] = backend.open(folder, spec, {**settings, **way._asdict()})
            stack.callback(runners[label].close)
        for number in range(ROUNDS + 1):
            for label, runner in runners.items():
                images = np.repeat(check_pictures(spec.image_size)[:1], runner.max_batch, 0)
                start = time.perf_counter()
                runner.run(images, class_maps=False)
                if number:
                    seconds[label].append((time.perf_counter() - start) / runner.max_batch)
            report((number + 1) / (ROUNDS + 1))
    return {label: round(statistics.median(values), 6) for label, values in seconds.items()}


def choose(seconds: Mapping[str, float]) -> str:
    """The fastest, if it takes at least 5 % less time than the first."""
    first, best = next(iter(seconds)), min(seconds, key=seconds.__getitem__)
    return best if seconds[best] <= WORTH * seconds[first] else first
