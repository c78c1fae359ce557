"""Tuning a CPU engine: several ways to use the processors are timed on the machine on which it is built."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cxr_trt.engine.backend import Backend
from cxr_trt.engine.cpu.config import CpuConfig
from cxr_trt.engine.timing import fastest, time_runners
from cxr_trt.processors import cores, processors
from cxr_trt.progress import ProgressCallback
from cxr_trt.spec import Specification

MAX_STREAMS = 8


def cpu_configs(max_batch: int | None) -> list[CpuConfig]:
    """The configurations to time, one stream first: streams that divide the cores evenly, with one X-ray per stream.

    Args:
        max_batch: the number of X-rays per call if it is fixed; numbers of streams that do not divide it are left out.
    """
    core_count = cores()
    streams = [n for n in range(1, MAX_STREAMS + 1) if core_count % n == 0]
    if max_batch is None:
        return [CpuConfig(1, 1), CpuConfig(1, 2), *(CpuConfig(n, n) for n in streams[1:])]
    return [CpuConfig(n, max_batch) for n in streams if max_batch % n == 0]


def tune(
    backend: Backend,
    folder: Path,
    spec: Specification,
    settings: Mapping[str, Any],
    configs: Sequence[CpuConfig],
    on_progress: ProgressCallback,
) -> dict[str, Any]:
    """Time an engine that was built into `folder`: all of `configs`, then the fastest with hyper-threading and layouts.

    Returns:
        `settings` with the fastest configuration, and with `tuning`: the median seconds per X-ray of everything timed.

    Raises:
        BackendError: the engine cannot be opened, or it fails.
    """
    tuning = {}

    def fastest_of(what: str, candidates: Mapping[str, CpuConfig]) -> CpuConfig:
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        on_progress(f"time {what}", 0.0)  # opening the engines takes its time too
        seconds = time_configs(
            backend, folder, spec, settings, candidates, lambda done: on_progress(f"time {what}", done)
        )
        tuning[what] = seconds
        return candidates[fastest(seconds)]

    by_streams = {f"{c.streams} x {c.max_batch // c.streams}": c for c in configs}
    config = fastest_of("streams x X-rays in each", by_streams)
    if processors() > cores():
        both = {"each core": config, "each logical processor": config._replace(hyper_threading=True)}
        config = fastest_of("a thread for", both)
    if backend.layouts:
        usual, *others = backend.layouts
        by_layout = {usual: config, **{layout: config._replace(layout=layout) for layout in others}}
        config = fastest_of("layout", by_layout)
    return {**settings, **config.settings, "tuning": tuning}


def time_configs(
    backend: Backend,
    folder: Path,
    spec: Specification,
    settings: Mapping[str, Any],
    configs: Mapping[str, CpuConfig],
    on_progress: Callable[[float], None],
) -> dict[str, float]:
    """Median seconds per X-ray of an engine in each configuration, see `time_runners`."""
    with ExitStack() as stack:
        runners = {}
        for label, config in configs.items():
            runners[label] = backend.open(folder, spec, {**settings, **config._asdict()})
            stack.callback(runners[label].close)
        return time_runners(runners, spec, on_progress)
