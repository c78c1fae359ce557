"""Timing open engines, and which of them is the fastest."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import Pending, Runner
from cxr_trt.export.pictures import check_pictures
from cxr_trt.spec import Specification

TIMED_ROUNDS = 3
TURNS = 2  # how often a round uses each of the runner's places for a batch in flight
MAX_TIME_RATIO = 0.95  # another engine is chosen only if it takes at most this share of the first one's time
MILLISECONDS_BELOW = 0.1  # seconds


def time_runners(
    runners: Mapping[str, Runner], spec: Specification, on_progress: Callable[[float], None]
) -> dict[str, float]:
    """Median seconds per X-ray of each open engine, with full batches. They take turns, after one warm-up round.

    A runner that overlaps batches is timed with as many in flight as it takes. The warm-up round then uses each of its
    places twice, since `cxr_trt.engine.gpu.pipeline` captures a graph the first time and launches it the second.
    """
    picture = check_pictures(spec.image_size)[0, 0]
    seconds: dict[str, list[float]] = {label: [] for label in runners}
    for timed_round in range(TIMED_ROUNDS + 1):
        for number, (label, runner) in enumerate(runners.items(), start=1):
            count = 1 if runner.in_flight == 1 else TURNS * runner.in_flight
            start = time.perf_counter()
            _run_batches(runner, [picture] * runner.max_batch, count)
            if timed_round > 0:
                seconds[label].append((time.perf_counter() - start) / (count * runner.max_batch))
            on_progress((timed_round + number / len(runners)) / (TIMED_ROUNDS + 1))
    return {label: round(statistics.median(values), 6) for label, values in seconds.items()}


def _run_batches(runner: Runner, batch: Sequence[npt.NDArray[np.uint8]], count: int) -> None:
    running: deque[Pending] = deque()
    for _ in range(count):
        if len(running) == runner.in_flight:
            running.popleft()()
        running.append(runner.submit(batch, False))
    while running:
        running.popleft()()


def fastest(seconds: Mapping[str, float]) -> str:
    """The label of the shortest time if it is at least 5 % shorter than the first one's; otherwise the first label."""
    first, best = next(iter(seconds)), min(seconds, key=seconds.__getitem__)
    return best if seconds[best] <= MAX_TIME_RATIO * seconds[first] else first


def in_words(seconds: float) -> str:
    """A time such as "0.48 s" or "1.25 ms"."""
    return f"{1000 * seconds:.2f} ms" if seconds < MILLISECONDS_BELOW else f"{seconds:.2f} s"
