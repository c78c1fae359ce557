"""This project's engines and what else one can do with the same weights, side by side: docs/benchmark.md.

    make bench     half an hour on two idle processors; writes benchmarks/results/peers.json and a plot too

Engines in int8 are calibrated on the images of CXR14_DIR, once; without it, they do not take part.

Each contestant is a process of its own (`benchmarks.contestants`). They take turns, so that what else the machine does
hits all alike, and each round begins with another one.
"""

import json
import math
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
from benchmarks.pictures import make_pictures, radiograph
from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.benchmark.gpu_state import GpuState
from cxr_trt.engine.choice import GPU_BACKENDS
from cxr_trt.engine.cuda import gpu
from cxr_trt.engine.manifest import NAME as MANIFEST
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.precision import PRECISIONS
from cxr_trt.preprocess import preprocess

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
SAME = 1e-3  # of a probability: what separates float32 implementations, and PIL's grey from ours
GPU_RUNS = 200
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
COMMAND = "make bench"
TEXT = """\
# {title}

The shipped network's weights and {files} files ({size} x {size}, PNG) for all; medians of {rounds} rounds in turn, on
{workers} decoding processes or DataLoader workers.

- **engine**: seconds an X-ray, from what is in memory to its probabilities: the uint8 picture for this project, the ten
  normalised float crops for the others, whose cutting and normalising is not counted here.
- **files**: seconds an X-ray, from files to a CSV table.
- **times faster**: than PyTorch eager with ten crops stacked, as re-implementations of CheXNet do it; the median of the
  rounds' ratios.
- **memory**: the most that the process and its decoders had together while they scored the files, in MiB.
- **int8**: {calibrated}

{rows}
`plain export` is `torch.onnx.export` of the network, fed with ten float crops. Probabilities of one picture differ by
{difference:.1e} at most from PyTorch's in the rows of ten crops in float32, and the benchmark fails above {same:.0e}.
{own_precision}{gpu}

![seconds an X-ray]({picture})
"""
GPU_TEXT = """
Rows with GPU ran on an {gpu}, the others on the processors of the same machine. Starting
the workers is a good part of `files` there. {missing}

One X-ray from memory, as in `engine`, {runs} times: milliseconds, and medians of the GPU's clock and power:

{latency}"""


OWN_PRECISION = "OpenVINO, plain export, own precision"
OWN_PRECISION_TEXT = """\
`own precision` is what OpenVINO takes where nobody asks for float32, bfloat16 on a processor that has it: {:.1e} off
here.
"""
CALIBRATED = "calibrated on 256 images of ChestX-ray14; what it does to the AUC: [parity](parity.md)."


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
            raise click.ClickException(f"a contestant ended with exit code {self._process.wait()}; see above")
        return json.loads(line)


@click.command()
@click.option("--files", "count", type=click.IntRange(1), default=12, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--only", multiple=True, help="Rows whose name begins so, besides the baseline: for a trial.")
@click.option("--calibrate", type=click.Path(path_type=Path), help="X-rays for int8, or an int8 bundle. [CXR14_DIR]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/peers.json")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "benchmark.md")
def main(count: int, rounds: int, only: tuple[str, ...], calibrate: Path | None, json_path: Path, page: Path) -> None:
    """Measure, and write the three files."""
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
            for row in contestants(int8=calibrate is not None)
            if row.name == BASELINE or not only or row.name.startswith(only)
        ]
        models = {row: make_model(row, folder, calibrate) for row in rows}
        processes: dict[str, Process] = {}
        try:
            for row in rows:
                processes[row.name] = Process(row, models[row], workers, picture, files)
            differences = compare(rows, processes)
            measured = measure(processes, rounds, folder)
            on_gpu = {row.name: latency(processes[row.name]) for row in rows if row.device == "cuda"}
        finally:
            for process in processes.values():
                process.close()
    result = {**made, "rounds": rounds, "files": count, "size": 1024, "workers": workers, "rows": {}}
    result["int8"] = calibrate is not None
    if on_gpu:
        result["gpu"] = gpu().name
    for row in rows:
        own = summary(measured[row.name], measured[BASELINE])
        result["rows"][row.name] = {**own, "exact": row.is_exact, "difference": differences[row.name]}
        result["rows"][row.name] |= on_gpu.get(row.name, {})
    plot = page.with_suffix(".png")
    write(result, json_path, to_markdown(result, plot.name), page)
    draw(result, plot)
    click.echo(page.read_text(encoding="utf-8"))


def contestants(*, int8: bool) -> Iterable[Row]:
    """All rows; those on a GPU only where there is one, those in int8 only where they can be calibrated."""
    yield Row(BASELINE, "eager")
    yield Row("torch.compile", "compile")
    yield Row("ONNX Runtime, plain export", "onnxruntime")
    yield Row("OpenVINO, plain export", "openvino")
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
    """The largest difference of a probability from the baseline's, by contestant; too large a one is an error."""
    probabilities = {name: np.array(process.ask("alone")["probabilities"]) for name, process in processes.items()}
    differences = {name: float(np.abs(own - probabilities[BASELINE]).max()) for name, own in probabilities.items()}
    for row in rows:
        if row.is_exact and not differences[row.name] <= SAME:
            raise click.ClickException(f"{row.name} differs from {BASELINE} by {differences[row.name]:.1e}")
    return differences


def measure(processes: dict[str, Process], rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds of each round by contestant, for the engine alone and for all files; memory."""
    names = list(processes)
    measured: dict[str, dict[str, Any]] = {name: {"engine": [], "files": []} for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            measured[name]["engine"].append(processes[name].ask("alone")["seconds"])
            measured[name]["files"].append(processes[name].ask(f"files {folder / 'table.csv'}")["seconds"])
    for name in names:
        memory = PeakMemory(processes[name].pid)
        with memory.watched():
            processes[name].ask(f"files {folder / 'table.csv'}")
        measured[name]["memory"] = memory.mib
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
        **{
            what: {
                "median": statistics.median(own[what]),
                "seconds": own[what],
                "times faster": statistics.median(b / a for a, b in zip(own[what], baseline[what], strict=True)),
            }
            for what in ("engine", "files")
        },
        "memory": own["memory"],
    }


def to_markdown(result: dict[str, Any], picture: str) -> str:
    """The page of a result, with the plot at `picture`."""
    rows = [
        (
            name,
            f"{own['engine']['median']:.3f}",
            f"{own['engine']['times faster']:.2f}",
            f"{own['files']['median'] / result['files']:.3f}",
            f"{own['files']['times faster']:.2f}",
            f"{own['memory']:.0f}",
        )
        for name, own in result["rows"].items()
    ]
    columns = ("", "engine", "times faster", "files", "times faster", "memory")
    has_gpu = any("GPU" in name for name in result["rows"])
    own_precision = result["rows"].get(OWN_PRECISION)
    text = TEXT.format(
        title=f"Benchmark on an {result['gpu']}" if has_gpu else "Benchmark",
        picture=picture,
        **{key: result[key] for key in ("files", "size", "rounds", "workers")},
        rows=table(columns, rows),
        difference=max(own["difference"] for own in result["rows"].values() if own["exact"]),
        same=SAME,
        own_precision=OWN_PRECISION_TEXT.format(own_precision["difference"]) if own_precision else "",
        calibrated=CALIBRATED if result["int8"] else "not measured, for want of images to calibrate on.",
        gpu=gpu_part(result) if has_gpu else "There was no GPU, so there is no row of one.",
    )
    return f"{text}\n{made_by(COMMAND, result)}"


def gpu_part(result: dict[str, Any]) -> str:
    """What the page says of a GPU: which one, latencies, and which backends are missing."""
    rows = {name: own for name, own in result["rows"].items() if "p50" in own}
    missing = [f"`{backend}`" for backend in GPU_BACKENDS if not any(f" {backend}," in name for name in rows)]
    latency = [
        (
            name,
            *(f"{1000 * own[percentile]:.1f}" for percentile in ("p50", "p95", "p99")),
            f"{own['gpu_state'].get('sm_clock_mhz', own['gpu_state'].get('gpu_clock_mhz', math.nan)):.0f} MHz",
            f"{own['gpu_state'].get('watts', math.nan):.0f} W",
        )
        for name, own in rows.items()
    ]
    return GPU_TEXT.format(
        gpu=result["gpu"],
        runs=GPU_RUNS,
        missing=f"There is no row of {' and '.join(missing)}: they did not run there." if missing else "",
        latency=table(("", "p50", "p95", "p99", "clock", "power"), latency),
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """A bar a contestant: seconds an X-ray from files to table."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(result["rows"])
    values = [result["rows"][name]["files"]["median"] / result["files"] for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(names) + 1), layout="constrained")
    colours = ["tab:blue" if name.startswith("cxr-trt") else "tab:gray" for name in names]
    axes.barh(names, values, color=colours)
    axes.bar_label(axes.containers[0], fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"seconds an X-ray, files to table\n{result['machine']}, {result['date']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.peers")
