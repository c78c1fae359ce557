"""The least time that an X-ray can take on each GPU, for each precision and view set. Nothing is measured."""

import click

from benchmarks.study import PAPER_MODEL, Result
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table
from cxr_trt.measure.gpu_peaks import GPU_PEAKS
from cxr_trt.measure.roofline import Layer, arithmetic_seconds, layers, seconds
from cxr_trt.views import CROP_VIEW_SETS

PACKAGES = ("onnx",)
BATCH = 8  # X-rays that share one reading of the weights: the default of --max-batch on a GPU
PRECISIONS = ("fp32", "tf32", "fp16", "int8")  # of TensorRT
TEXT = """\
# Roofline

**A limit, not a measurement: {headline}** No engine of this project has run on a GPU.

The least time that the arithmetic and the memory traffic of the graph can take at the peaks that the vendor publishes.
It assumes one kernel for each convolution, pooling and matrix product, everything between them at no cost, and each
operand through the memory once, in batches of {batch} X-rays. In brackets is the arithmetic alone. An engine whose
operands stay in the GPU's cache can beat the first number; only one that convolves with fewer multiplications than the
direct way, such as Winograd's algorithm, can beat the second. In int8, everything is int8. The graphs are those that
engines are built from; "shared" means `--share-crops`.

## Least milliseconds per X-ray

{limits}

## As typed

TensorRT fuses norms and activations into the convolution before them, but, as far as is known, not into the one behind
them. A DenseNet concatenates, normalises, and then convolves: the norms before its convolutions, and the gates, are
kernels of their own that read and write every feature map again. With them, ten crops take at least so many
milliseconds, which an engine is more likely to come near to. In brackets is the limit from above.

{typed}

## What the graphs do

Multiplications, and least bytes through the memory, per X-ray.

{totals}

## Where, for ten crops

{stages}

## Peaks

Operations per second (a multiplication with its addition is two) and bytes per second, dense. The peaks were taken
from pages that quote NVIDIA's documents, and derived from sparse peaks where the source says so: check them with the
documents before you rely on a limit. Where no peak of TF32 is published, as for Jetsons, there is none here. A Jetson's
peaks are those of its fastest power mode. Missing, because not all of their peaks were found: Orin Nano with 4 GB, AGX
Orin Industrial and Thor T4000.

{peaks}
"""


@click.command()
def measure() -> Result:
    """Compute the limits of the paper's network."""
    graph = ScoringGraph.load(PAPER_MODEL)
    graphs: dict[str, list[Layer]] = {}
    for view_set in CROP_VIEW_SETS:
        viewed = graph.with_views(view_set)
        graphs[view_set] = layers(viewed.rewritten(Rewrites(share_crops=False)))
        if view_set in ("ten-crop", "five-crop"):
            graphs[f"{view_set}, shared"] = layers(viewed.rewritten(Rewrites()))
    typed = layers(graph.with_views("ten-crop").rewritten(Rewrites(share_crops=False)), as_typed=True)
    return {
        "label": "limit, not measured",
        "batch": BATCH,
        "graphs": {name: _totals(found) for name, found in graphs.items()},
        "stages": _stages(graphs["ten-crop"]),
        "as_typed": {
            **_totals(typed),
            "seconds": {
                gpu.name: {precision: seconds(typed, gpu, precision, BATCH) for precision in gpu.operations}
                for gpu in GPU_PEAKS
            },
        },
        "seconds": {
            gpu.name: {
                precision: {
                    name: {
                        "limit": seconds(found, gpu, precision, BATCH),
                        "arithmetic": arithmetic_seconds(found, gpu, precision),
                    }
                    for name, found in graphs.items()
                }
                for precision in gpu.operations
            }
            for gpu in GPU_PEAKS
        },
        "peaks": {gpu.name: vars(gpu) for gpu in GPU_PEAKS},
    }


def _totals(found: list[Layer]) -> Result:
    return {
        "kernels": len(found),
        "multiplications": sum(layer.multiplications for layer in found),
        "bytes": {precision: sum(layer.bytes(precision, BATCH) for layer in found) for precision in PRECISIONS},
    }


def _stages(found: list[Layer]) -> Result:
    """Multiplications and bytes of the network's stages."""
    by_stage: dict[str, list[Layer]] = {}
    for layer in found:
        by_stage.setdefault(layer.name.removeprefix("features.").partition(".")[0], []).append(layer)
    return {stage: _totals(own) for stage, own in by_stage.items()}


def page(result: Result) -> str:
    """The page of a result."""
    names = list(result["graphs"])
    limits = [
        (
            gpu,
            precision,
            *(f"{1e3 * own[name]['limit']:.3g} ({_two_digits(1e3 * own[name]['arithmetic'])})" for name in names),
        )
        for gpu, by_precision in result["seconds"].items()
        for precision, own in by_precision.items()
    ]
    limits_of = result["seconds"]
    typed = [
        (
            gpu,
            *(
                f"{1e3 * own[precision]:.3g} ({1e3 * limits_of[gpu][precision]['ten-crop']['limit']:.3g})"
                if precision in own
                else "-"
                for precision in PRECISIONS
            ),
        )
        for gpu, own in result["as_typed"]["seconds"].items()
    ]
    typed.append(("kernels", *[str(result["as_typed"]["kernels"])] * len(PRECISIONS)))
    typed.append(("memory", *_megabytes(result["as_typed"], 0)))
    totals = [
        (_code(name), str(own["kernels"]), f"{own['multiplications'] / 1e9:.2f} G", *_megabytes(own, 0))
        for name, own in result["graphs"].items()
    ]
    multiplications = result["graphs"]["ten-crop"]["multiplications"]
    stages = [
        (
            stage,
            f"{own['multiplications'] / 1e9:.2f} G",
            f"{100 * own['multiplications'] / multiplications:.1f} %",
            *_megabytes(own, 1),
        )
        for stage, own in result["stages"].items()
    ]
    peaks = [
        (
            gpu,
            *(_tera(own["operations"].get(precision)) for precision in PRECISIONS),
            f"{own['bandwidth'] / 1e9:g} GB/s",
            own["source"],
        )
        for gpu, own in result["peaks"].items()
    ]
    h100 = {precision: 1e3 * own["ten-crop"]["limit"] for precision, own in result["seconds"]["H100"].items()}
    return TEXT.format(
        headline=f"ten crops take at least {h100['fp32']:.2f} ms on an H100 in float32 and {h100['fp16']:.2f} ms in "
        "float16.",
        batch=result["batch"],
        limits=markdown_table(("GPU", "precision", *names), limits),
        typed=markdown_table(("GPU", *PRECISIONS), typed),
        totals=markdown_table(("views", "kernels", "multiplications", *PRECISIONS), totals),
        stages=markdown_table(("stage", "multiplications", "share", *PRECISIONS), stages),
        peaks=markdown_table(("GPU", *PRECISIONS, "memory", "source"), peaks),
    )


def _tera(operations: float | None) -> str:
    return f"{operations / 1e12:.4g} T" if operations else "-"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def _code(name: str) -> str:
    views, comma, rest = name.partition(",")
    return f"`{views}`{comma}{rest}"


def _megabytes(own: Result, digits: int) -> list[str]:
    return [f"{own['bytes'][precision] / 1e6:.{digits}f} MB" for precision in PRECISIONS]
