"""Runs the benchmark's contestants side by side: each in a process of its own (`benchmarks.tools.contestants`).

They take turns, so that what else the machine does affects all alike, and each round begins with another one.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.study import PAPER_MODEL, ROOT, Result
from benchmarks.tools.contestants import export_plain
from benchmarks.tools.memory import PeakMemory
from cxr_trt.engine.choice import GPU_BACKENDS
from cxr_trt.engine.cpu.openvino import has_bfloat16
from cxr_trt.engine.gpu.cuda import gpu
from cxr_trt.engine.manifest import MANIFEST_FILE
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.measure.gpu_state import GpuState
from cxr_trt.precision import PRECISIONS
from cxr_trt.processors import processors

BASELINE = "PyTorch eager"
OWN_PRECISION = "OpenVINO, plain export, own precision"
EXACT_PEERS = ("eager", "compile", "onnxruntime", "openvino")  # kinds of contestants in float32
OUR_ENGINES = (
    ("onnxruntime", "ten-crop", "fp32"),
    ("openvino", "ten-crop", "fp32"),
    ("openvino", "five-crop", "fp32"),
    ("openvino", "dense", "fp32"),
    ("openvino", "center-mirror", "fp32"),
    ("openvino", "center", "fp32"),
    ("openvino", "ten-crop", "bf16"),
    ("openvino", "dense", "bf16"),
    ("openvino", "ten-crop", "int8"),
    ("openvino", "dense", "int8"),
)
MAX_DIFFERENCE = 1e-3  # of a probability: what separates float32 implementations, and PIL's grey from ours
LATENCY_RUNS = 200


@dataclass(frozen=True)
class Row:
    """A contestant.

    kind: see `benchmarks.tools.contestants`. bundle: backend, views and precision of this project's engines. device:
    cpu or cuda.
    """

    name: str
    kind: str
    device: str = "cpu"
    bundle: tuple[str, str, str] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether its numbers are PyTorch's, but for float32's rounding."""
        if self.bundle:
            return self.bundle[1:] == ("ten-crop", "fp32")
        return self.kind in EXACT_PEERS


class Process:
    """A running contestant."""

    def __init__(self, row: Row, model: Path, workers: int, picture: Path, files: Path) -> None:
        self._name = row.name
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        # What torch.compile kept of a run with other instructions gives NaN with those of AVX2.
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(files.parent / "inductor")
        arguments = [row.kind, model, row.device, workers, picture, files]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tools.contestants", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self.pid = self._process.pid
        self._read()  # ready

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._read()
        return answer

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self._name} ended with exit code {self._process.wait()}; see above")
        return json.loads(line)


def contestants(*, int8: bool, avx2: bool, gpu: bool) -> Iterator[Row]:
    """The baseline and all others: on the CPU, or those on the GPU that can run there; int8 only if it is possible.

    Held to AVX2, OpenVINO would still choose bfloat16 on a processor that has it, and find nothing to compute it with.
    """
    yield Row(BASELINE, "eager")
    if gpu:
        yield from _on_gpu(int8)
        return
    yield Row("torch.compile", "compile")
    yield Row("ONNX Runtime, plain export", "onnxruntime")
    yield Row("OpenVINO, plain export", "openvino")
    if not avx2:
        yield Row(OWN_PRECISION, "openvino-default")
        yield Row(f"{OWN_PRECISION}, throughput", "openvino-throughput")
    if has_bfloat16():
        yield Row(f"{BASELINE}, bfloat16", "eager-bfloat16")
        yield Row("torch.compile, bfloat16", "compile-bfloat16")
    for backend, views, precision in OUR_ENGINES:
        name = f"cxr-trt {backend}, {views}" + ("" if precision == "fp32" else f", {precision}")
        if precision in BACKENDS[backend].precisions and (int8 or precision != "int8"):
            yield Row(name, "bundle", bundle=(backend, views, precision))


def _on_gpu(int8: bool) -> Iterator[Row]:
    import onnxruntime
    import torch

    if not torch.cuda.is_available():
        raise click.ClickException("PyTorch sees no NVIDIA GPU")
    yield Row("PyTorch eager, GPU", "eager", "cuda")
    yield Row("torch.compile, GPU", "compile", "cuda")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        yield Row("ONNX Runtime, plain export, GPU", "onnxruntime", "cuda")
    for backend in GPU_BACKENDS:
        if BACKENDS[backend].why_not_build() or BACKENDS[backend].why_not_run():
            continue
        for precision in PRECISIONS if int8 else ("fp32", "fp16"):
            name = f"cxr-trt {backend}, ten-crop, {precision}, GPU"
            yield Row(name, "bundle", "cuda", (backend, "ten-crop", precision))


def make_model(row: Row, folder: Path, calibrate: Path | None) -> Path:
    """What a contestant opens: the shipped graph, a plain export of its network, or a bundle built as a user does."""
    if row.kind.startswith(("eager", "compile")):
        return PAPER_MODEL
    if not row.bundle:
        plain = folder / "plain.onnx"
        if not plain.exists():
            export_plain(PAPER_MODEL, plain)
        return plain
    backend, views, precision = row.bundle
    bundle, source, options = folder / f"{backend}-{views}-{precision}.cxr", PAPER_MODEL, []
    if precision == "int8":
        calibrated = next(folder.glob("*-int8.cxr"), calibrate)
        if calibrated and (calibrated / MANIFEST_FILE).exists():
            source = calibrated
        else:
            options = ["--calibrate", calibrated]
    command = [sys.executable, "-m", "cxr_trt", "build-engine", source, "-o", bundle, "--backend", backend]
    command += ["--views", views, "--precision", precision, *options]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    return bundle


def run_contest(
    rows: list[Row], folder: Path, files: Path, picture: Path, rounds: int, calibrate: Path | None
) -> dict[str, Result]:
    """Measure all contestants: `engine`, `files`, `memory`, `exact`, `difference`, and on a GPU the latency of each."""
    workers = processors()
    models = {row: make_model(row, folder, calibrate) for row in rows}
    processes: dict[str, Process] = {}
    try:
        for row in rows:
            processes[row.name] = Process(row, models[row], workers, picture, files)
        memory = _measure_memory(processes, folder)
        differences = _compare(rows, processes)
        measured = _measure(processes, rounds, folder)
        latencies = {row.name: _latency(processes[row.name]) for row in rows if row.device == "cuda"}
    finally:
        for process in processes.values():
            process.close()
    return {
        row.name: {
            **_summary(measured[row.name], measured[BASELINE]),
            "memory": memory[row.name],
            "exact": row.is_exact,
            "difference": differences[row.name],
            **latencies.get(row.name, {}),
        }
        for row in rows
    }


def _compare(rows: list[Row], processes: dict[str, Process]) -> dict[str, float]:
    """The largest difference of a probability from the baseline's, by contestant; too large a one is an error.

    Of the second X-ray alone, for which an engine may have compiled another form: the one that is timed.
    """
    probabilities = {}
    for name, process in processes.items():
        process.ask("alone")
        probabilities[name] = np.array(process.ask("alone")["probabilities"])
    differences = {name: float(np.abs(own - probabilities[BASELINE]).max()) for name, own in probabilities.items()}
    for row in rows:
        if row.is_exact and not differences[row.name] <= MAX_DIFFERENCE:
            raise click.ClickException(f"{row.name} differs from {BASELINE} by {differences[row.name]:.1e}")
    return differences


def _measure_memory(processes: dict[str, Process], folder: Path) -> dict[str, float]:
    """MiB while files are scored, by contestant, when they have been scored once, which compiles, and nothing else."""
    found = {}
    for name, process in processes.items():
        process.ask(f"files {folder / 'table.csv'}")
        memory = PeakMemory(process.pid)
        with memory.watched():
            process.ask(f"files {folder / 'table.csv'}")
        found[name] = memory.mib
    return found


def _measure(processes: dict[str, Process], rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds of each round by contestant, for the engine alone and for all files."""
    names = list(processes)
    measured: dict[str, dict[str, list[float]]] = {name: {"engine": [], "files": []} for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            measured[name]["engine"].append(processes[name].ask("alone")["seconds"])
            measured[name]["files"].append(processes[name].ask(f"files {folder / 'table.csv'}")["seconds"])
    return measured


def _latency(process: Process) -> Result:
    """Percentiles of the seconds of one X-ray on a GPU, and its clocks and power meanwhile."""
    state = GpuState(gpu().pci_bus_id)
    with state.watched():
        seconds = [process.ask("alone")["seconds"] for _ in range(LATENCY_RUNS)]
    return {**{f"p{p}": float(np.percentile(seconds, p)) for p in (50, 95, 99)}, "gpu_state": state.median()}


def _summary(own: dict[str, list[float]], baseline: dict[str, list[float]]) -> Result:
    """Medians, all values, and the median of the rounds' ratios to the baseline."""
    return {
        what: {
            "median": statistics.median(own[what]),
            "seconds": own[what],
            "times_faster": statistics.median(b / a for a, b in zip(own[what], baseline[what], strict=True)),
        }
        for what in ("engine", "files")
    }
