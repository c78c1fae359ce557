"""Choosing the precision of an engine by measurement: the fastest here that agrees with the scoring graph."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cxr_trt.engine.backend import Backend, Runner
from cxr_trt.engine.build import BuildRequest, build_bundle, copy_bundle
from cxr_trt.engine.manifest import Manifest
from cxr_trt.engine.timing import fastest, in_words, time_runners
from cxr_trt.errors import BackendError
from cxr_trt.precision import PRECISIONS, Precision


def offered_precisions(backends: Sequence[Backend], *, is_calibrated: bool, is_fixed: bool) -> list[Precision]:
    """The precisions to choose from, the most exact first. int8 is only for calibrated networks.

    Neither it nor fp16 is for networks whose types are fixed. On CPUs that do not compute in float16, fp16 is left out
    too: it is slower there than fp32, and only shows what it does to the scores.
    """
    offered = {precision for backend in backends for precision in backend.precisions}
    if not is_calibrated or is_fixed:
        offered -= {"int8"}
    computes_float16 = any("fp16" in own.precisions for own in backends if own.sets_float16 or not own.on_cpu)
    if is_fixed or not computes_float16:
        offered -= {"fp16"}
    return [precision for precision in PRECISIONS if precision in offered]


class _Built(NamedTuple):
    """An engine that passed the check at the end of its build."""

    request: BuildRequest
    bundle: Path
    manifest: Manifest

    @property
    def parity(self) -> Mapping[str, float]:
        parity: Mapping[str, float] = self.manifest.settings["parity"]
        return parity


def build_fastest(
    requests: Sequence[BuildRequest], target: Path, say: Callable[[str], None], *, overwrite: bool = False
) -> tuple[BuildRequest, Manifest]:
    """Build an engine for each request, time those that pass the check at the end of a build, and write the fastest.

    On a GPU, what is written is the engine that was timed: another build may choose other kernels. On a CPU it is
    built once more, for the configuration that is fastest there.

    Args:
        requests: precisions of one network, for backends that run here; the most exact first.
        target: the bundle to write.
        say: called with a sentence about each engine.
        overwrite: whether a bundle at `target` may be replaced.

    Returns:
        The request of the fastest engine, or the first one if no other is at least 5 % faster, and the manifest, which
        has what was measured of each.

    Raises:
        BackendError: no engine passes the check.
        UsageError: see `build_bundle`.
    """
    on_progress = requests[0].options.on_progress
    with tempfile.TemporaryDirectory() as folder:
        built, refused = _build_all(requests, Path(folder))
        if not built:
            raise BackendError("; ".join(f"{label}: {reason}" for label, reason in refused.items()))
        seconds = _time(built, lambda done: on_progress("time precisions", done))
        for label, reason in refused.items():
            say(f"{label} is left out: {reason}")
        for label, value in seconds.items():
            difference = built[label].parity["largest"]
            say(f"{label}: {in_words(value)} per X-ray, probabilities differ from float32 by at most {difference:.1e}")
        tried = {
            label: {f"{key}_difference": built[label].parity[key] for key in ("largest", "mean")}
            | {"seconds_per_xray": value}
            for label, value in seconds.items()
        }
        request, bundle, manifest = built[fastest(seconds)]
        if request.backend.on_cpu:
            return request, build_bundle(replace(request, tried=tried), target, overwrite=overwrite)
        manifest = replace(manifest, settings={**manifest.settings, "tuning": {"precision": tried}})
        copy_bundle(bundle, manifest, target, overwrite=overwrite)
        return request, manifest


def _build_all(requests: Sequence[BuildRequest], folder: Path) -> tuple[dict[str, _Built], dict[str, str]]:
    """The engines by a label, and why the others were refused."""
    built: dict[str, _Built] = {}
    refused: dict[str, str] = {}
    for request in requests:
        label = f"{request.plan.precision}, {request.backend.name}"
        bundle = folder / f"{request.plan.precision}-{request.backend.name}.cxr"
        try:
            built[label] = _Built(request, bundle, build_bundle(replace(request, cpu_configs=()), bundle))
        except BackendError as error:
            refused[label] = str(error)
    return built, refused


def _time(built: Mapping[str, _Built], on_progress: Callable[[float], None]) -> dict[str, float]:
    """Seconds per X-ray of each engine. On a CPU they take turns, as other programs may disturb them.

    On a GPU, each is opened alone: an engine that finds less memory than it would have alone takes smaller batches.
    """
    groups = [[label] for label in built]
    if all(engine.request.backend.on_cpu for engine in built.values()):
        groups = [list(built)]
    seconds: dict[str, float] = {}
    for number, group in enumerate(groups):
        with ExitStack() as stack:
            runners: dict[str, Runner] = {}
            for label in group:
                request, bundle, manifest = built[label]
                runners[label] = request.backend.open(bundle, request.graph.spec, manifest.settings)
                stack.callback(runners[label].close)
            spec = built[group[0]].request.graph.spec
            progress = partial(_part_of, on_progress, number, len(groups))
            seconds |= time_runners(runners, spec, progress)
    return seconds


def _part_of(on_progress: Callable[[float], None], number: int, count: int, done: float) -> None:
    """Report the progress of one of `count` equal parts as that of the whole."""
    on_progress((number + done) / count)
