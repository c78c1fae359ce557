"""This project's engines, and what else one can do with the same weights, side by side.

With `--avx2`, PyTorch and OpenVINO are held to AVX2; with `--gpu`, contestants are on an NVIDIA GPU. Engines in int8
are calibrated on the images of ChestX-ray14, once; without those, they do not take part.
"""

import math
import os
import statistics
import tempfile
from pathlib import Path
from typing import Literal

import click
import numpy as np

from benchmarks.study import Result
from benchmarks.tools.contest import (
    BASELINE,
    LATENCY_RUNS,
    MAX_DIFFERENCE,
    OWN_PRECISION,
    contestants,
    run_contest,
)
from benchmarks.tools.pictures import PNG_SIDE, make_pictures, radiograph
from cxr_trt.engine.choice import GPU_BACKENDS
from cxr_trt.engine.gpu.cuda import gpu as gpu_of_this_machine
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

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
AVX2_LIMITS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
TEXT = """\
# {title}

{headline}

All contestants have the weights of the shipped network `paper` and score the same
{files} files (PNG, {size} x {size} pixels).
Times are medians of {rounds} rounds, in which the contestants take turns, with {workers} decoding processes or
DataLoader workers.

{rows}

- **engine**: seconds per X-ray from memory to probabilities. This project starts from the grey picture, the others from
  ten normalised crops; cutting and normalising them is not counted.
- **files**: seconds per X-ray from image files to a CSV table.
- **times faster**: than PyTorch eager with ten stacked crops, the way re-implementations of CheXNet score. It is the
  median of the ratios of each round.
- **memory**: the peak of the process and its decoders together while they scored the files, in MiB.
- **plain export**: `torch.onnx.export` of the network, fed with ten float crops.
{notes}

![seconds per X-ray from files to table]({picture}.png)
"""
SAME = """\
- The contestants with ten crops in float32 differ by at most {difference:.1e} from PyTorch's probabilities of the same
  picture; the benchmark fails above {limit:.0e}."""
OWN = """\
- **own precision**: what OpenVINO chooses unless it is told to use float32: bfloat16, on a processor that has it. Its
  probabilities are up to {:.1e} off here."""
BFLOAT16 = """\
- **throughput**: OpenVINO with its hint for throughput, the crops divided among its requests.
- **bfloat16**, of PyTorch: with `torch.autocast`. **bf16**, of this project: up to {:.1e} off here. Its int8 engines
  have bfloat16 around int8."""
RATIOS = """\
- Compared with plain OpenVINO in its own precision, medians of the ratios of each round, engine alone: {}."""
INT8 = "- **int8**: calibrated on 256 images of ChestX-ray14. What it does to the AUC: [parity](parity-cpu.md)."
NO_INT8 = "- **int8** was not measured: there were no images to calibrate on."
AVX2 = """\
- PyTorch and OpenVINO were held to AVX2, by `{}`. ONNX Runtime has no such limit: its rows used all instructions of
  this processor. Without VNNI, oneDNN needs three instructions for 32 products of int8 (VPMADDUBSW, VPMADDWD, VPADDD)
  where it needs one with VNNI, and one for 8 products of float32: so int8 gains less here."""
GPU = """\
- Rows with GPU ran on an {gpu}, the baseline on the processors of the same machine. Starting the workers is a good part
  of `files`.
{missing}
One X-ray from memory, as in `engine`, {runs} times: milliseconds, and medians of the GPU's clock and power.

{latency}"""


@click.command()
@click.option("--files", type=click.IntRange(1), default=12, help="How many to score in a round.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="In which all take turns.")
@click.option("--only", multiple=True, help="For a trial: rows whose name begins so, besides the baseline.")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="X-rays to calibrate int8 on, or a bundle in int8. Default: the images of CXR14_DIR.",
)
@click.option("--avx2", is_flag=True, help="Hold PyTorch and OpenVINO to AVX2.")
@click.option("--gpu", is_flag=True, help="Contestants on the GPU.")
def measure(files: int, rounds: int, only: tuple[str, ...], calibrate: Path | None, avx2: bool, gpu: bool) -> Result:
    """Score with all contestants in turn; their processes must have the machine for themselves."""
    if avx2:
        os.environ |= AVX2_LIMITS
    if not calibrate and os.environ.get("CXR14_DIR"):
        calibrate = Path(os.environ["CXR14_DIR"], "images")
    rows = [
        row
        for row in contestants(int8=calibrate is not None, avx2=avx2, gpu=gpu)
        if row.name == BASELINE or not only or row.name.startswith(only)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_pictures(folder / "files", "PNG", files)
        picture = folder / "picture.npy"
        np.save(picture, preprocess(radiograph(), 512))
        measured = run_contest(rows, folder, pictures, picture, rounds, calibrate)
    return {
        "rounds": rounds,
        "files": files,
        "size": PNG_SIDE,
        "workers": processors(),
        "int8": calibrate is not None,
        "avx2": avx2,
        **({"gpu": gpu_of_this_machine().name} if gpu else {}),
        "rows": measured,
    }


def page(result: Result) -> str:
    """The page of a result."""
    rows = [
        (
            name,
            f"{own['engine']['median']:.3f}",
            f"{own['engine']['times_faster']:.2f}",
            f"{own['files']['median'] / result['files']:.3f}",
            f"{own['files']['times_faster']:.2f}",
            f"{own['memory']:.0f}",
        )
        for name, own in result["rows"].items()
    ]
    columns = ("", "engine", "times faster", "files", "times faster", "memory")
    difference = max(own["difference"] for own in result["rows"].values() if own["exact"])
    notes = [SAME.format(difference=difference, limit=MAX_DIFFERENCE)]
    if own := result["rows"].get(OWN_PRECISION):
        notes.append(OWN.format(own["difference"]))
    if own := result["rows"].get("cxr-trt openvino, ten-crop, bf16"):
        notes += [BFLOAT16.format(own["difference"]), RATIOS.format(_ratios(result))]
    notes.append(INT8 if result["int8"] else NO_INT8)
    if result["avx2"]:
        notes.append(AVX2.format(" ".join(f"{name}={value}" for name, value in AVX2_LIMITS.items())))
    title, picture = ("Benchmark with AVX2", "benchmark-avx2") if result["avx2"] else ("Benchmark", "benchmark")
    if "gpu" in result:
        notes.append(_gpu_part(result))
        title, picture = f"Benchmark on an {result['gpu']}", "benchmark-gpu"
    return TEXT.format(
        title=title,
        headline=_headline(result),
        **{key: result[key] for key in ("files", "size", "rounds", "workers")},
        rows=markdown_table(columns, rows),
        notes="\n".join(notes),
        picture=picture,
    )


def _headline(result: Result) -> str:
    """The numbers that matter most."""
    rows = result["rows"]

    def seconds(name: str, what: str) -> float:
        return float(rows[name][what]["median"] / (result["files"] if what == "files" else 1))

    if "gpu" in result:
        best = min((name for name in rows if name.endswith("GPU")), key=lambda name: seconds(name, "engine"))
        gpu, processors = (1000 * seconds(name, "engine") for name in (best, BASELINE))
        return f"**From memory, an X-ray takes {gpu:.0f} ms with {best}, and {processors:.0f} ms with {BASELINE}.**"
    ours = [name for name in rows if name.startswith("cxr-trt") and "ten-crop" in name]
    found = ", ".join(f"{seconds(name, 'files'):.2f} s with {name}" for name in ours)
    return f"**From files to table, ten crops: {seconds(BASELINE, 'files'):.2f} s per X-ray with PyTorch, {found}.**"


def own_precision_ratios(result: Result, part: Literal["engine", "files"] = "engine") -> dict[str, float]:
    """How many times as fast as plain OpenVINO in its own precision our engines are that are not float32."""
    rows = result["rows"]
    peer = rows[OWN_PRECISION][part]["seconds"]
    return {
        name.removeprefix("cxr-trt openvino, "): statistics.median(
            b / a for a, b in zip(own[part]["seconds"], peer, strict=True)
        )
        for name, own in rows.items()
        if name.startswith("cxr-trt") and name.endswith(("bf16", "int8"))
    }


def _ratios(result: Result) -> str:
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in own_precision_ratios(result).items())


def _gpu_part(result: Result) -> str:
    """What the page says about a GPU: which one, latencies, and which backends are missing."""
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
    return GPU.format(
        gpu=result["gpu"],
        runs=LATENCY_RUNS,
        missing=f"- These did not run there: {', '.join(missing)}.\n" if missing else "",
        latency=markdown_table(("", "p50", "p95", "p99", "clock", "power"), latency),
    )


def draw(result: Result, path: Path) -> None:
    """One bar per contestant: seconds per X-ray from files to table."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(result["rows"])
    values = [result["rows"][name]["files"]["median"] / result["files"] for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(names) + 1), layout="constrained")
    colours = ["tab:blue" if name.startswith("cxr-trt") else "tab:gray" for name in names]
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"seconds per X-ray, files to table\n{result['machine']}, {result['date']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
