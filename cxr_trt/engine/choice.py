"""Choosing the backend to build an engine for."""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, TypeVar

import onnx

from cxr_trt.engine.backend import Backend, BuildOptions
from cxr_trt.engine.build import options_for
from cxr_trt.engine.gpu import cuda
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import listed
from cxr_trt.precision import Precision
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.spec import Specification

CPU_BACKENDS = ("openvino", "onnxruntime")  # which one is faster depends on the processor
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "cuda")  # the faster one first
TIMED_RUNS = 2

Label = TypeVar("Label")


class Timed(NamedTuple):
    """An engine to time: what it is built from, and for which backend."""

    backend: Backend
    model: onnx.ModelProto
    options: BuildOptions = BuildOptions()


def check_backend(name: str, precision: Precision) -> None:
    """Raise BackendError, which says what to do, if the named backend cannot build here or not in this precision."""
    if reason := BACKENDS[name].why_not_build():
        raise BackendError(reason)
    if precision not in BACKENDS[name].precisions:
        able = ", ".join(other for other in BACKENDS if precision in BACKENDS[other].precisions)
        if not able:
            raise BackendError(f"no backend runs {precision} on this processor; choose another --precision")
        raise BackendError(f"{name} does not run {precision}; choose --backend {able}, or another --precision")


def choose_backend(name: str, plan: PrecisionPlan, graph: ScoringGraph, say: Callable[[str], None]) -> Backend:
    """The backend of that name; for "auto", the best one that can build and run the plan's precision here.

    With a GPU that is TensorRT; without one, both CPU backends are timed and the faster one is chosen. Beside float32,
    bfloat16 is timed where the processor has it.

    Args:
        name: "auto" or a key of BACKENDS.
        plan: the engine's precision.
        graph: the scoring graph, which is timed.
        say: called with a sentence that says what was measured, or why the GPU is not used.

    Raises:
        BackendError: see `check_backend`.
    """
    able = able_backends(name, plan.precision, say)
    if len(able) == 1:
        return able[0]
    timed = {backend.name: _timed(backend, plan, graph) for backend in able}
    others = {}
    if plan.precision == "fp32" and not graph.keeps_float32:
        others = {
            f"{backend.name} with --precision bf16": _timed(backend, PrecisionPlan("bf16"), graph)
            for backend in able
            if "bf16" in backend.precisions
        }
    say(f"timing {listed([*timed, *others])} on this machine")
    timings = time_engines({**timed, **others}, graph.spec, TIMED_RUNS)
    seconds = {label: min(values) for label, values in timings.items()}
    say(", ".join(f"{label} takes {value:.2f} s per X-ray" for label, value in seconds.items()))
    return BACKENDS[min(timed, key=seconds.__getitem__)]


def able_backends(name: str, precision: Precision, say: Callable[[str], None]) -> list[Backend]:
    """The backends to choose from: that of the name; for "auto", the best one for a GPU, or else those for CPUs.

    Args:
        name: "auto" or a key of BACKENDS.
        precision: the engine's precision.
        say: called with a sentence that says why the GPU is not used, if there is one.

    Raises:
        BackendError: see `check_backend`.
    """
    if name != "auto":
        check_backend(name, precision)
        return [BACKENDS[name]]
    reasons = []
    for backend in map(BACKENDS.__getitem__, GPU_BACKENDS):
        reason = backend.why_not_build() or backend.why_not_run()
        if reason is None and precision not in backend.precisions:
            reason = f"{backend.name} does not run {precision}"
        if reason is None:
            return [backend]
        reasons.append(reason)
    if cuda.driver_is_here():
        say(f"building for the CPU, although there is an NVIDIA driver: {'; '.join(reasons)}")
    able = [BACKENDS[name] for name in CPU_BACKENDS if precision in BACKENDS[name].precisions]
    if not able:
        raise BackendError(f"no backend runs {precision} on this processor; choose another --precision")
    return able


def _timed(backend: Backend, plan: PrecisionPlan, graph: ScoringGraph) -> Timed:
    model = plan.engine_graph(graph, backend)
    return Timed(backend, model, options_for(plan, backend, BuildOptions(), graph))


def time_engines(engines: Mapping[Label, Timed], spec: Specification, runs: int) -> dict[Label, list[float]]:
    """Seconds per image of each engine, for each of `runs` runs. The engines take turns, after one warm-up run each."""
    picture = check_pictures(spec.image_size)[0, 0]
    timings: dict[Label, list[float]] = {label: [] for label in engines}
    with ExitStack() as stack:
        runners = {}
        for label, (backend, model, options) in engines.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            settings = backend.build(model, folder, options)
            runners[label] = backend.open(folder, spec, settings)
            stack.callback(runners[label].close)
        for run in range(runs + 1):
            for label, runner in runners.items():
                start = time.perf_counter()
                runner.submit([picture], False)()
                if run:
                    timings[label].append(time.perf_counter() - start)
    return timings
