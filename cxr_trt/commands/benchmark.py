"""The command `cxr-trt benchmark`: measures how fast a bundle scores files here, and what takes the time."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from cxr_trt.commands.messages import message_options
from cxr_trt.commands.options import PATH, json_option, overwrite_option, workers_option
from cxr_trt.commands.terminal import show_facts, show_table
from cxr_trt.engine.backend import LayerTime
from cxr_trt.engine.gpu.cuda import gpu
from cxr_trt.engine.gpu.identity import BOARD_FILE, jetson_board
from cxr_trt.engine.manifest import GRAPH_FILE
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import UsageError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.decoders import Decoders, Limits, Request
from cxr_trt.images.files import Source, find_files
from cxr_trt.measure.cpu_peaks import measure_cpu_peaks, multiplied_in
from cxr_trt.measure.gpu_peaks import find_gpu
from cxr_trt.measure.gpu_state import GpuState
from cxr_trt.measure.machine import describe_machine, peak_memory
from cxr_trt.measure.roofline import layers, seconds
from cxr_trt.outputs import check_output, replacing
from cxr_trt.processors import processors
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files
from cxr_trt.tables.writing import write_table
from cxr_trt.words import quantity

TIME_PERCENTILES = (95, 99)
SHOWN_LAYERS = 15


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("paths", nargs=-1, type=PATH)
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Repetitions of the engine alone.")
@click.option("--layers", "shows_layers", is_flag=True, help="Time each layer too, and show what takes longest.")
@workers_option
@json_option
@message_options
@overwrite_option
def benchmark(
    bundle: Path,
    paths: tuple[Path, ...],
    runs: int,
    shows_layers: bool,
    workers: int | None,
    json_path: Path | None,
    overwrite: bool,
) -> None:
    """Measure how fast BUNDLE is here: the engine alone and, with PATHS, from X-ray files to a table.

    With --layers also what one X-ray takes in each layer of the engine, as its backend measures it.
    """
    if json_path:
        check_output(json_path, (".json",), overwrite=overwrite)
    sources = find_files(paths).sources if paths else ()
    start = time.perf_counter()
    with Engine(bundle) as engine:
        engine.run(check_pictures(engine.spec.image_size)[:1])
        first = time.perf_counter() - start
        is_tensorrt = engine.manifest.backend.startswith("tensorrt")
        result: dict[str, Any] = {
            "machine": describe_machine(),
            "backend": f"{engine.manifest.backend} {engine.manifest.backend_version}",
            "precision": engine.manifest.precision,
            "views": engine.spec.views,
            "engine": engine.fingerprint,
            "max_batch": engine.max_batch,
            "seconds_to_open_and_score_one": first,
            **(on_gpu if is_tensorrt else engine_alone)(engine, runs),
        }
        if sources:
            result |= from_files(engine, sources, workers or processors())
        if is_tensorrt or BACKENDS[engine.manifest.backend].on_cpu:
            limit = against_the_gpu if is_tensorrt else against_the_processors
            result |= limit(engine, bundle, result["seconds_per_xray"]["median"])
        times = layer_times(engine, bundle, runs) if shows_layers else []
    result["peak_memory_mib"] = peak_memory()
    show_facts({name.replace("_", " "): _shown(value) for name, value in result.items()})
    if times:
        show_layers(times)
        result["layers"] = [layer._asdict() for layer in times]
    if json_path:
        with replacing(json_path) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def engine_alone(engine: Engine, runs: int) -> dict[str, Any]:
    """Seconds for a single X-ray, and per X-ray in full batches, from uint8 pictures in memory to probabilities."""
    pictures = np.resize(check_pictures(engine.spec.image_size), (engine.max_batch, 1, *engine.spec.image_size))
    single = _timed(lambda: engine.run(pictures[:1]), runs)
    full = _timed(lambda: engine.run(pictures), runs) if engine.max_batch > 1 else single
    return {
        "seconds_of_one_xray": _distribution(single),
        "seconds_per_xray": _distribution([value / engine.max_batch for value in full]),
    }


def on_gpu(engine: Engine, runs: int) -> dict[str, Any]:
    """As `engine_alone`, with the state of the first GPU meanwhile: medians of its clocks, power and temperature."""
    state = GpuState(gpu().pci_bus_id)
    with state.watched():
        measured = engine_alone(engine, runs)
    return {**measured, "gpu_state": state.median() or "not readable"}


def from_files(engine: Engine, sources: Sequence[Source], workers: int) -> dict[str, Any]:
    """Files per second with `workers` decoding processes: from files to a table, and from files to pictures alone."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = [result.row for result in score_files(engine, sources, workers=workers)]
        write_table(Path(folder, "scores.csv"), ".csv", rows, engine.spec)
        to_table = time.perf_counter() - start
    if all(row.error for row in rows):
        raise UsageError(f"none of the {quantity(len(rows), 'file')} could be read; there is nothing to measure")
    start = time.perf_counter()
    with Decoders(workers, engine.spec.image_size, Limits(), engine.spec.fit) as decoders:
        for _ in decoders.map((Request(source) for source in sources), workers + engine.max_batch):
            pass
        to_engine = time.perf_counter() - start
    return {
        "files": len(rows),
        "files_with_errors": sum(row.error is not None for row in rows),
        "workers": workers,
        "files_per_second_to_the_table": len(rows) / to_table,
        "files_per_second_to_the_engine": len(rows) / to_engine,
    }


def against_the_gpu(engine: Engine, bundle: Path, measured: float) -> dict[str, Any]:
    """How many times as long as the roofline's least times the engine takes, on a GPU whose peaks are known."""
    first = gpu()
    peaks = find_gpu(first.name, board=jetson_board(BOARD_FILE), multiprocessors=first.multiprocessors)
    if not peaks or engine.manifest.precision not in peaks.operations:
        return {"gpu": first.name}
    model = _computed_graph(engine, bundle)
    limit, typed = (
        seconds(layers(model, as_typed=as_typed), peaks, engine.manifest.precision, engine.max_batch)
        for as_typed in (False, True)
    )
    return {
        "gpu": peaks.name,
        "limit_not_measured": limit,
        "times_the_limit": measured / limit,
        "limit_as_typed_not_measured": typed,
        "times_the_limit_as_typed": measured / typed,
    }


def against_the_processors(engine: Engine, bundle: Path, measured: float) -> dict[str, Any]:
    """How many times as long as the roofline's least time the engine takes, with what these processors reach here."""
    precision = engine.manifest.precision
    peaks = measure_cpu_peaks(precision)
    limit = seconds(layers(_computed_graph(engine, bundle)), peaks, precision, engine.max_batch)
    return {
        "reached_here": {
            "multiplied_in": multiplied_in(precision),
            "multiplications_per_second": peaks.operations[precision] / 2,
            "bytes_per_second": peaks.bandwidth,
        },
        "limit_not_measured": limit,
        "times_the_limit": measured / limit,
    }


def layer_times(engine: Engine, bundle: Path, runs: int) -> list[LayerTime]:
    """Seconds of each layer for one X-ray, in order of execution."""
    backend, picture = BACKENDS[engine.manifest.backend], check_pictures(engine.spec.image_size)[:1]
    return backend.layer_times(bundle, engine.manifest.settings, picture, runs)


def show_layers(times: Sequence[LayerTime]) -> None:
    """Print what takes longest: by kind, and the layers alone."""
    total = sum(layer.seconds for layer in times)
    by_kind: dict[str, list[float]] = {}
    for layer in times:
        by_kind.setdefault(layer.kind, []).append(layer.seconds)
    kinds = sorted(by_kind.items(), key=lambda item: -sum(item[1]))[:SHOWN_LAYERS]
    slowest = sorted(times, key=lambda layer: -layer.seconds)[:SHOWN_LAYERS]
    show_table(
        ("kind of layer", "layers", "ms", "share"),
        [(kind, str(len(own)), *_milliseconds(sum(own), total)) for kind, own in kinds],
    )
    rows = [(layer.name, layer.kind, *_milliseconds(layer.seconds, total)) for layer in slowest]
    show_table(("layer", "kind", "ms", "share"), rows)


def _milliseconds(seconds: float, total: float) -> tuple[str, str]:
    return f"{1000 * seconds:.3f}", f"{seconds / total:.1%}"


def _computed_graph(engine: Engine, bundle: Path) -> onnx.ModelProto:
    graph = ScoringGraph.load(bundle / GRAPH_FILE)
    return graph.rewritten(Rewrites(share_crops=engine.manifest.settings["share_crops"]))


def _timed(call: Callable[[], Any], runs: int) -> list[float]:
    call()  # the first is slower
    values = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        values.append(time.perf_counter() - start)
    return values


def _distribution(values: list[float]) -> dict[str, float]:
    named = {f"p{percentile}": float(np.percentile(values, percentile)) for percentile in TIME_PERCENTILES}
    return {"median": statistics.median(values), "min": min(values), **named, "max": max(values)}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(number)}" for name, number in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
