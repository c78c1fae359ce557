"""This project's engines and what else one can do with the same weights, side by side: docs/benchmark.md.

    make bench          half an hour on two idle processors; writes benchmarks/results/peers.json and a plot too
    make bench-avx2     the same without what AVX-512 and later instructions bring: docs/benchmark-avx2.md

Engines in int8 are calibrated on the images of CXR14_DIR, once; without it, they do not take part.

Each contestant is a process of its own (`benchmarks.contestants`). They take turns, so that what else the machine does
hits all alike, and each round begins with another one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.contestants import export_plain
from benchmarks.memory import PeakMemory
from benchmarks.peers_page import AVX2, GPU_RUNS, OWN_PRECISION, SAME, draw, to_markdown
from benchmarks.pictures import make_pictures, radiograph
from benchmarks.result import ROOT, provenance, write
from cxr_trt.measure.gpu_state import GpuState
from cxr_trt.engine.choice import GPU_BACKENDS
from cxr_trt.engine.gpu.cuda import gpu
from cxr_trt.engine.manifest import NAME as MANIFEST
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.precision import PRECISIONS
from cxr_trt.images.preprocess import preprocess

MODEL = ROOT / "cxr_trt" / "models" / "demo.onnx"
PACKAGES = (
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "torchvision",
    "pillow",
    "opencv-python-headless",
    "tensorrt",
    "tensorrt-rtx",
)
BASELINE = "PyTorch eager"
OURS = (
    ("onnxruntime", "ten-crop", "fp32"),
    ("openvino", "ten-crop", "fp32"),
    ("openvino", "five-crop", "fp32"),
    ("openvino", "dense", "fp32"),
    ("openvino", "center-mirror", "fp32"),
    ("openvino", "center", "fp32"),
    ("openvino", "ten-crop", "int8"),
    ("openvino", "dense", "int8"),
)


@dataclass(frozen=True)
class Row:
    """A contestant.

    kind: see `benchmarks.contestants`. bundle: backend, views and precision of this project's engines. device: cpu or
    cuda.
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
        return self.kind != "openvino-default"


class Process:
    """A running contestant."""

    def __init__(self, row: Row, model: Path, workers: int, picture: Path, files: Path) -> None:
        self._name = row.name
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        arguments = [row.kind, model, row.device, workers, picture, files]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contestants", *map(str, arguments)],
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
        return self._read()

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"{self._name} ended with exit code {self._process.wait()}; see above")
        return json.loads(line)


@click.command()
@click.option("--files", "count", type=click.IntRange(1), default=12, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--only", multiple=True, help="Rows whose name begins so, besides the baseline: for a trial.")
@click.option("--calibrate", type=click.Path(path_type=Path), help="X-rays for int8, or an int8 bundle. [CXR14_DIR]")
@click.option("--avx2", is_flag=True, help="Hold PyTorch and OpenVINO to AVX2.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/peers.json")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "benchmark.md")
def main(
    count: int, rounds: int, only: tuple[str, ...], calibrate: Path | None, avx2: bool, json_path: Path, page: Path
) -> None:
    """Measure, and write the three files."""
    if avx2:
        os.environ |= AVX2
    if not calibrate and os.environ.get("CXR14_DIR"):
        calibrate = Path(os.environ["CXR14_DIR"], "images")
    made = provenance(PACKAGES)
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_pictures(folder / "files", "PNG", count)
        picture = folder / "picture.npy"
        np.save(picture, preprocess(radiograph(), 512))
        rows = [
            row
            for row in contestants(int8=calibrate is not None, bfloat16=not avx2)
            if row.name == BASELINE or not only or row.name.startswith(only)
        ]
        models = {row: make_model(row, folder, calibrate) for row in rows}
        processes: dict[str, Process] = {}
        try:
            for row in rows:
                processes[row.name] = Process(row, models[row], workers, picture, files)
            memory = measure_memory(processes, folder)
            differences = compare(rows, processes)
            measured = measure(processes, rounds, folder)
            on_gpu = {row.name: latency(processes[row.name]) for row in rows if row.device == "cuda"}
        finally:
            for process in processes.values():
                process.close()
    result = {**made, "rounds": rounds, "files": count, "size": 1024, "workers": workers, "rows": {}}
    result["int8"] = calibrate is not None
    result["avx2"] = avx2
    if on_gpu:
        result["gpu"] = gpu().name
    for row in rows:
        own = summary(measured[row.name], measured[BASELINE])
        result["rows"][row.name] = {
            **own,
            "memory": memory[row.name],
            "exact": row.is_exact,
            "difference": differences[row.name],
        }
        result["rows"][row.name] |= on_gpu.get(row.name, {})
    plot = page.with_suffix(".png")
    write(result, json_path, to_markdown(result, plot.name), page)
    draw(result, plot)
    click.echo(page.read_text(encoding="utf-8"))


def contestants(*, int8: bool, bfloat16: bool) -> Iterable[Row]:
    """All rows; those on a GPU only where there is one, those in int8 only where they can be calibrated.

    Held to AVX2, OpenVINO would still choose bfloat16 on a processor that has it, and find nothing to compute it.
    """
    yield Row(BASELINE, "eager")
    yield Row("torch.compile", "compile")
    yield Row("ONNX Runtime, plain export", "onnxruntime")
    yield Row("OpenVINO, plain export", "openvino")
    if bfloat16:
        yield Row(OWN_PRECISION, "openvino-default")
    for backend, views, precision in OURS:
        if precision == "fp32":
            yield Row(f"cxr-trt {backend}, {views}", "bundle", bundle=(backend, views, precision))
        elif int8:
            yield Row(f"cxr-trt {backend}, {views}, {precision}", "bundle", bundle=(backend, views, precision))
    if _torch_sees_a_gpu():
        yield Row("PyTorch eager, GPU", "eager", "cuda")
        yield Row("torch.compile, GPU", "compile", "cuda")
    if "CUDAExecutionProvider" in _providers():
        yield Row("ONNX Runtime, plain export, GPU", "onnxruntime", "cuda")
    for backend in GPU_BACKENDS:
        if BACKENDS[backend].why_not_build() or BACKENDS[backend].why_not_run():
            continue
        for precision in PRECISIONS if int8 else ("fp32", "fp16"):
            name = f"cxr-trt {backend}, ten-crop, {precision}, GPU"
            yield Row(name, "bundle", "cuda", (backend, "ten-crop", precision))


def make_model(row: Row, folder: Path, calibrate: Path | None) -> Path:
    """What a contestant opens: the shipped graph, a plain export of its network, or a bundle built as a user does."""
    if row.kind in ("eager", "compile"):
        return MODEL
    if not row.bundle:
        plain = folder / "plain.onnx"
        if not plain.exists():
            export_plain(MODEL, plain)
        return plain
    backend, views, precision = row.bundle
    bundle, source, options = folder / f"{backend}-{views}-{precision}.cxr", MODEL, []
    if precision == "int8":
        calibrated = next(folder.glob("*-int8.cxr"), calibrate)
        if calibrated and (calibrated / MANIFEST).exists():
            source = calibrated
        else:
            options = ["--calibrate", calibrated]
    command = [sys.executable, "-m", "cxr_trt", "build-engine", source, "-o", bundle, "--backend", backend]
    command += ["--views", views, "--precision", precision, *options]
    subprocess.run(list(map(str, command)), check=True, cwd=ROOT)
    return bundle


def _torch_sees_a_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def compare(rows: list[Row], processes: dict[str, Process]) -> dict[str, float]:
    """The largest difference of a probability from the baseline's, by contestant; too large a one is an error.

    Of the second X-ray alone, for which an engine may have compiled another form: the one that is timed.
    """
    probabilities = {}
    for name, process in processes.items():
        process.ask("alone")
        probabilities[name] = np.array(process.ask("alone")["probabilities"])
    differences = {name: float(np.abs(own - probabilities[BASELINE]).max()) for name, own in probabilities.items()}
    for row in rows:
        if row.is_exact and not differences[row.name] <= SAME:
            raise click.ClickException(f"{row.name} differs from {BASELINE} by {differences[row.name]:.1e}")
    return differences


def measure_memory(processes: dict[str, Process], folder: Path) -> dict[str, float]:
    """MiB while files are scored, by contestant, when they have been scored once, which compiles, and nothing else."""
    found = {}
    for name, process in processes.items():
        process.ask(f"files {folder / 'table.csv'}")
        memory = PeakMemory(process.pid)
        with memory.watched():
            process.ask(f"files {folder / 'table.csv'}")
        found[name] = memory.mib
    return found


def measure(processes: dict[str, Process], rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds of each round by contestant, for the engine alone and for all files."""
    names = list(processes)
    measured: dict[str, dict[str, Any]] = {name: {"engine": [], "files": []} for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            measured[name]["engine"].append(processes[name].ask("alone")["seconds"])
            measured[name]["files"].append(processes[name].ask(f"files {folder / 'table.csv'}")["seconds"])
    return measured


def latency(process: Process) -> dict[str, Any]:
    """Percentiles of the seconds of one X-ray on a GPU, and its clocks and power meanwhile."""
    state = GpuState(gpu().pci_bus_id)
    with state.watched():
        seconds = [process.ask("alone")["seconds"] for _ in range(GPU_RUNS)]
    return {**{f"p{p}": float(np.percentile(seconds, p)) for p in (50, 95, 99)}, "gpu_state": state.median()}


def summary(own: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """Medians, all values, and the median of the rounds' ratios to the baseline."""
    return {
        what: {
            "median": statistics.median(own[what]),
            "seconds": own[what],
            "times faster": statistics.median(b / a for a, b in zip(own[what], baseline[what], strict=True)),
        }
        for what in ("engine", "files")
    }


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.peers")
