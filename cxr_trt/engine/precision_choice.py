"""Choosing the precision of an engine by measurement: the fastest here that agrees with the scoring graph."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cxr_trt.engine.backend import Backend, Runner
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.tuning import fastest, time_runners
from cxr_trt.errors import BackendError
from cxr_trt.precision import PRECISIONS, Precision


def offered_precisions(backends: Sequence[Backend], *, is_calibrated: bool) -> list[Precision]:
    """The precisions to choose from, the most exact first. int8 is only for calibrated networks.

    On CPUs, fp16 is left out: it is slower there than fp32, and only shows what it does to the scores.
    """
    offered = {precision for backend in backends for precision in backend.precisions}
    if not is_calibrated:
        offered -= {"int8"}
    if all(backend.on_cpu for backend in backends):
        offered -= {"fp16"}
    return [precision for precision in PRECISIONS if precision in offered]


def choose_precision(requests: Sequence[BuildRequest], say: Callable[[str], None]) -> BuildRequest:
    """Build an engine for each request, and time those that pass the check at the end of a build.

    Args:
        requests: precisions of one network, for backends that run here; the most exact first.
        say: called with a sentence about each engine.

    Returns:
        The request of the fastest engine, or the first one if no other is at least 5 % faster; with what was measured.

    Raises:
        BackendError: no engine passes the check.
    """
    passed: dict[str, BuildRequest] = {}
    refused: dict[str, str] = {}
    tried: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runners: dict[str, Runner] = {}
        for request in requests:
            label = f"{request.plan.precision}, {request.backend.name}"
            bundle = folder / f"{request.plan.precision}-{request.backend.name}.cxr"
            try:
                manifest = build_bundle(replace(request, cpu_configs=()), bundle)
            except BackendError as error:
                refused[label] = str(error)
                continue
            passed[label] = request
            tried[label] = {f"{key}_difference": manifest.settings["parity"][key] for key in ("largest", "mean")}
            runners[label] = request.backend.open(bundle, request.graph.spec, manifest.settings)
            stack.callback(runners[label].close)
        if not passed:
            raise BackendError("; ".join(f"{label}: {reason}" for label, reason in refused.items()))
        on_progress = requests[0].options.on_progress
        seconds = time_runners(runners, requests[0].graph.spec, lambda done: on_progress("time precisions", done))
    for label, reason in refused.items():
        say(f"{label} is left out: {reason}")
    for label, value in seconds.items():
        tried[label]["seconds_per_xray"] = value
        difference = tried[label]["largest_difference"]
        say(f"{label}: {value:.2f} s per X-ray, probabilities differ from float32 by at most {difference:.1e}")
    return replace(passed[fastest(seconds)], tried=tried)
