"""The page and the plot of what `benchmarks.peers` measured."""

import math
from pathlib import Path
from typing import Any

from benchmarks.result import made_by, table
from cxr_trt.engine.choice import GPU_BACKENDS

SAME = 1e-3  # of a probability: what separates float32 implementations, and PIL's grey from ours
GPU_RUNS = 200
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
{own_precision}{limit}{gpu}

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
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
AVX2_TEXT = """\
PyTorch and OpenVINO were held to AVX2, by `{}`. ONNX Runtime knows no
such limit: its rows used all that this processor has. Without VNNI, oneDNN computes 32 products of int8 in three
instructions (VPMADDUBSW, VPMADDWD, VPADDD), with it in one, and 8 of float32 in one: int8 gains less here.
"""
CALIBRATED = "calibrated on 256 images of ChestX-ray14; what it does to the AUC: [parity](parity.md)."


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
    avx2 = result.get("avx2")
    place = f" on an {result['gpu']}" if has_gpu else " with AVX2" if avx2 else ""
    text = TEXT.format(
        title=f"Benchmark{place}",
        picture=picture,
        **{key: result[key] for key in ("files", "size", "rounds", "workers")},
        rows=table(columns, rows),
        difference=max(own["difference"] for own in result["rows"].values() if own["exact"]),
        same=SAME,
        own_precision=OWN_PRECISION_TEXT.format(own_precision["difference"]) if own_precision else "",
        calibrated=CALIBRATED if result["int8"] else "not measured, for want of images to calibrate on.",
        limit=AVX2_TEXT.format(" ".join(f"{name}={value}" for name, value in AVX2.items())) if avx2 else "",
        gpu=gpu_part(result) if has_gpu else "There was no GPU, so there is no row of one.",
    )
    return f"{text}\n{made_by('make bench-avx2' if avx2 else 'make bench', result)}"


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
