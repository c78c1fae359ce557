"""The least time that an X-ray can take on each GPU, for each precision and view set: docs/roofline.md.

make roofline     nothing is measured: a minute on any machine
"""

from pathlib import Path
from typing import Any

import click

from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.measure.roofline import BYTES, GPU_PEAKS, Layer, arithmetic_seconds, layers, seconds
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.views import VIEW_SETS

BATCH = 8  # X-rays that share one reading of the weights: the default of --max-batch on a GPU
COMMAND = "make roofline"
TEXT = """\
# Roofline

**Limit, not measured.** The least time that the graph's arithmetic and memory traffic can take at the peaks that the
vendor publishes. No engine has run on a GPU. One kernel is assumed for each convolution, pooling and matrix product,
with all between them at no cost and each operand through the memory once, in batches of {batch} X-rays. In brackets
the arithmetic alone: an engine whose operands stay in the GPU's cache can beat the first number, and only one that
convolves with fewer multiplications than the direct way, as Winograd's algorithm does, this one. In int8, all is int8.
Graphs are those that engines are built from, and "shared" is with `--share-crops`. Float32 is without TF32, as built.

## Least milliseconds an X-ray

{limits}
## What the graphs do

Multiplications, and least bytes through the memory, for one X-ray.

{totals}
## Where, for ten crops

{stages}
## Peaks

Operations a second (a multiplication with its addition is two) and bytes a second, dense. They were taken from pages
that quote the data sheets, and derived from sparse peaks where it says so: hold them against the sheets before you rely
on a limit.

{peaks}
"""


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/roofline.json")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "roofline.md")
def main(json_path: Path, page: Path) -> None:
    """Compute, and write both files."""
    result, page_text = roofline()
    write(result, json_path, page_text, page)
    click.echo(page_text)


def roofline() -> tuple[dict[str, Any], str]:
    """The numbers and the page."""
    made = provenance(("onnx",))
    model, info = read_scoring_graph(ROOT / "cxr_trt" / "models" / "demo.onnx")
    graphs = {}
    for view_set in VIEW_SETS:
        viewed, viewed_info = with_views(model, info, view_set)
        graphs[view_set] = layers(optimised(viewed, viewed_info, Rewrites(share_crops=False)))
        if view_set in ("ten-crop", "five-crop"):
            graphs[f"{view_set}, shared"] = layers(optimised(viewed, viewed_info, Rewrites()))
    result = {
        **made,
        "label": "limit, not measured",
        "batch": BATCH,
        "graphs": {name: _totals(found) for name, found in graphs.items()},
        "seconds": {
            gpu.name: {
                precision: {
                    name: {
                        "limit": seconds(found, gpu, precision, BATCH),
                        "arithmetic": arithmetic_seconds(found, gpu, precision),
                    }
                    for name, found in graphs.items()
                }
                for precision in BYTES
            }
            for gpu in GPU_PEAKS
        },
        "peaks": {gpu.name: vars(gpu) for gpu in GPU_PEAKS},
    }
    return result, to_markdown(result, graphs["ten-crop"])


def _totals(found: list[Layer]) -> dict[str, Any]:
    return {
        "kernels": len(found),
        "multiplications": sum(layer.multiplications for layer in found),
        "bytes": {precision: sum(layer.bytes(precision, BATCH) for layer in found) for precision in BYTES},
    }


def to_markdown(result: dict[str, Any], ten_crop: list[Layer]) -> str:
    """The page of a result."""
    names = list(result["graphs"])
    limits = [
        (gpu, precision, *(f"{1e3 * own[name]['limit']:.3g} ({1e3 * own[name]['arithmetic']:.2g})" for name in names))
        for gpu, by_precision in result["seconds"].items()
        for precision, own in by_precision.items()
    ]
    totals = [
        (
            f"`{name.replace(',', '`,')}" if "," in name else f"`{name}`",
            own["kernels"],
            f"{own['multiplications'] / 1e9:.2f} G",
            *(f"{own['bytes'][precision] / 1e6:.0f} MB" for precision in BYTES),
        )
        for name, own in result["graphs"].items()
    ]
    peaks = [
        (gpu.name, *(f"{gpu.operations[p] / 1e12:g} T" for p in BYTES), f"{gpu.bandwidth / 1e9:g} GB/s", gpu.source)
        for gpu in GPU_PEAKS
    ]
    text = TEXT.format(
        batch=result["batch"],
        limits=table(("GPU", "precision", *names), limits),
        totals=table(("views", "kernels", "multiplications", *BYTES), totals),
        stages=table(("stage", "multiplications", "share", *BYTES), _stages(ten_crop)),
        peaks=table(("GPU", *BYTES, "memory", "source"), peaks),
    )
    return f"{text}\n{made_by(COMMAND, result)}"


def _stages(found: list[Layer]) -> list[tuple[str, ...]]:
    """Multiplications and bytes of the network's stages."""
    by_stage: dict[str, list[Layer]] = {}
    for layer in found:
        by_stage.setdefault(layer.name.removeprefix("features.").partition(".")[0], []).append(layer)
    total = sum(layer.multiplications for layer in found)
    rows = []
    for stage, own in by_stage.items():
        multiplications = sum(layer.multiplications for layer in own)
        traffic = (f"{sum(layer.bytes(precision, BATCH) for layer in own) / 1e6:.1f} MB" for precision in BYTES)
        rows.append((stage, f"{multiplications / 1e9:.2f} G", f"{100 * multiplications / total:.1f} %", *traffic))
    return rows


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.roofline")
