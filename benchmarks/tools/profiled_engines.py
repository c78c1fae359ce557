"""Engines of OpenVINO to time and to profile: as they are shipped, and with changes that were tried."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.tools.layer_work import REST, LayerWork, layer_work
from cxr_trt.engine.backend import BuildOptions, LayerTime
from cxr_trt.engine.build import options_for
from cxr_trt.engine.cpu.openvino import ENGINE_FILE, OpenVinoBackend
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.rewrites import JOINED, NEW, Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.measure.cpu_peaks import CpuPeaks
from cxr_trt.precision.float16 import layer_of
from cxr_trt.precision.int8 import quantize
from cxr_trt.precision.int8_features import keep_features_in_int8
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.views import ViewSet

BACKEND = BACKENDS["openvino"]
PROFILED_RUNS = 5
MAX_UNKNOWN_SHARE = 0.05  # of the time, in layers that OpenVINO's profile and its graph name differently
INT8_VIEWS: tuple[ViewSet, ...] = ("ten-crop", "dense")
SUMS = ("layers", "seconds", "multiplications", "bytes", "limit")
INT8_FEATURES = "features of dense blocks kept in int8, a scale per channel"
FLOAT_FEATURES = "features of dense blocks in floating point"
CHUNKS = "features joined after every four dense layers"
SIGNED = "activations in 127 levels with a sign, as TensorRT has them"

Engine = tuple[onnx.ModelProto, BuildOptions]
"""What an engine is built from."""


class Float32Around(OpenVinoBackend):
    """OpenVINO with float32 in all layers that are not int8, and in the features of dense blocks."""

    int8_features = False

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "int8")


class Int8Features(Float32Around):
    """The same with the features of dense blocks in int8."""

    int8_features = True


def shipped_engines(graph: ScoringGraph, plan8: PrecisionPlan | None) -> dict[str, Engine]:
    """As `build-engine` makes them: ten crops in each precision of this processor, and dense views in int8."""
    plans = [PrecisionPlan("fp32"), *([PrecisionPlan("bf16")] if "bf16" in BACKEND.precisions else [])]
    engines = {f"ten-crop, {plan.precision}": _engine(graph, plan) for plan in plans}
    if plan8:
        engines |= {f"{views}, int8": _engine(graph.with_views(views), plan8) for views in INT8_VIEWS}
    return engines


def _engine(graph: ScoringGraph, plan: PrecisionPlan) -> Engine:
    return plan.engine_graph(graph, BACKEND), options_for(plan, BACKEND, BuildOptions(), graph)


def changed_engines(graph: ScoringGraph, plan8: PrecisionPlan | None) -> dict[tuple[str, str], Engine]:
    """Engines of `shipped_engines` with a change, by the label of the engine and the name of the change.

    Raises click.UsageError if the calibration is of an earlier version, which did not measure features.
    """
    if plan8 is None or plan8.calibration is None:
        return {}
    if not plan8.calibration.features:
        raise click.UsageError("the engine of --int8 was calibrated by an earlier version; calibrate it again")
    thresholds, features = plan8.calibration.thresholds, plan8.calibration.features
    model = keep_features_in_int8(graph.rewritten(Rewrites()), features)
    engines = {("ten-crop, fp32", INT8_FEATURES): (model, BuildOptions())}
    for views in INT8_VIEWS:
        own = graph.with_views(views)
        label, options = f"{views}, int8", options_for(plan8, BACKEND, BuildOptions(), own)
        is_kept = plan8.has_int8_features(own, BACKEND)
        signed, unsigned = (quantize(own.rewritten(Rewrites()), thresholds, unsigned=value) for value in (False, True))
        with_features = keep_features_in_int8(unsigned, features)
        change, changed = (FLOAT_FEATURES, unsigned) if is_kept else (INT8_FEATURES, with_features)
        engines[label, change] = (changed, options)
        engines[label, SIGNED] = (keep_features_in_int8(signed, features) if is_kept else signed, options)
        if not is_kept:  # there, what chunks would save is saved already
            chunked = own.rewritten(Rewrites(chunk_concats=True))
            engines[label, CHUNKS] = (quantize(chunked, _split(thresholds, chunked), unsigned=True), options)
    return engines


def _split(thresholds: Mapping[str, float], chunked: onnx.ModelProto) -> dict[str, float]:
    """The thresholds of a graph in which `chunk_concats` has split convolutions: both parts have that of the whole."""
    layers = [layer_of(node.name) for node in chunked.graph.node if node.op_type == "Conv"]
    wholes = {layer: layer.replace(f".{JOINED}.", ".").replace(f".{NEW}.", ".") for layer in layers}
    return {layer: thresholds[whole] for layer, whole in wholes.items() if whole in thresholds}


def time_in_turn(
    engines: Mapping[Any, Engine], graph: ScoringGraph, image: npt.NDArray[np.uint8], rounds: int
) -> tuple[dict[Any, list[float]], dict[Any, npt.NDArray[np.float32]]]:
    """Seconds of each engine in each round, and the probabilities [findings] that it gives."""
    seconds: dict[Any, list[float]] = {label: [] for label in engines}
    probabilities = {}
    with ExitStack() as stack:
        runners = {}
        for label, (model, options) in engines.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            runners[label] = BACKEND.open(folder, graph.spec, BACKEND.build(model, folder, options))
            stack.callback(runners[label].close)
            probabilities[label] = runners[label].submit([image[0, 0]], False)().probabilities[0]
        for _ in range(rounds):
            for label, runner in runners.items():
                start = time.perf_counter()
                runner.submit([image[0, 0]], False)()
                seconds[label].append(time.perf_counter() - start)
    return seconds, probabilities


def profile(engine: Engine, image: npt.NDArray[np.uint8]) -> tuple[list[LayerTime], dict[str, LayerWork]]:
    """What each layer takes, and what it does."""
    model, options = engine
    with tempfile.TemporaryDirectory() as name:
        settings = BACKEND.build(model, Path(name), options)
        times = BACKEND.layer_times(Path(name), settings, image, PROFILED_RUNS)
        return times, layer_work(Path(name, ENGINE_FILE), settings, image.shape)


def by_kind(
    times: Iterable[LayerTime], work: Mapping[str, LayerWork], peaks: CpuPeaks, precision: str
) -> dict[str, dict[str, float]]:
    """Sums over the layers of each kind, the slowest first.

    limit: seconds in which the processors could do the multiplications or move the bytes, whichever takes longer,
    layer by layer.
    """
    kinds: dict[str, dict[str, float]] = {}
    total = unknown = 0.0
    for layer in times:
        done = work.get(layer.name)
        total += layer.seconds
        if done is None:
            unknown += layer.seconds
            done = LayerWork(REST, 0, 0)
        limit = max(2 * done.multiplications / peaks.operations[precision], done.bytes / peaks.bandwidth)
        own = kinds.setdefault(done.kind, dict.fromkeys(SUMS, 0))
        for name, value in zip(SUMS, (1, layer.seconds, done.multiplications, done.bytes, limit), strict=True):
            own[name] += value
    if unknown > MAX_UNKNOWN_SHARE * total:
        raise click.ClickException(
            f"{unknown / total:.1%} of the time is in layers that OpenVINO's graph does not name"
        )
    return dict(sorted(kinds.items(), key=lambda item: -item[1]["seconds"]))
