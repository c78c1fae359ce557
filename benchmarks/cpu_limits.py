"""Where the time of OpenVINO's engines goes by kind of layer, and how near that is to what the processors can do.

Each kind is held against a limit: the multiplications of a large matrix product and the bytes of a copy, both measured
on the same machine. Rewrites of the graph that were tried and left out are timed in turn with the engines as shipped.
"""

import json
import statistics
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks import rewrites
from benchmarks.study import PAPER_MODEL, RESULTS, Result
from benchmarks.tools.cpu_targets import (
    engine_and_limit,
    layers_seconds,
    limit_range,
    on_avx2,
    precision_of,
    targets_table,
    verdict,
)
from benchmarks.tools.layer_work import CONVOLUTIONS
from benchmarks.tools.pictures import radiograph
from benchmarks.tools.profiled_engines import (
    BACKEND,
    FLOAT_FEATURES,
    INT8_FEATURES,
    PROFILED_RUNS,
    by_kind,
    changed_engines,
    profile,
    shipped_engines,
    time_in_turn,
)
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table
from cxr_trt.measure.cpu_peaks import COPIED_BYTES, measure_cpu_peaks
from cxr_trt.precision.plan import PRECISION_FILE, PrecisionPlan

PACKAGES = ("openvino", "onnxruntime")
ALONE = {
    "average_maps": "none",
    "fold_norms": "none",
    "pool_first": "none",
    "all but share_crops": "none",
    "all but chunk_concats": "all but share_crops",
    "all but crops_in_turn": "all but chunk_concats",
    "all": "all but crops_in_turn",
}
"""Rows of the study of rewrites, and the row without the last rewrite of each."""
CONVOLUTION_ENDINGS = ("convolution", "convolutions")
MIN_GAIN = 1.05  # with less, a rewrite does not pay
TEXT = """\
# Limits of the CPU engines

**{headline}**

Engines of OpenVINO with the shipped network `paper`, one X-ray from memory; medians of {rounds} rounds in which all
engines of this page took turns. {missing}

{engines}

- **at the limits**: if every layer did its multiplications as fast as a large matrix product does them on this machine,
  or moved its bytes as fast as a copy of {copied} MB, whichever takes longer. Nothing else is counted. A kind of layer
  that is faster than that, because its data are in the cache, counts with what it takes.
- **times the limit**: how much longer the engine takes than that; and, where its layers together take longer than the
  engine, how much longer they do. Which of the two is right cannot be told: a profile takes time itself, above all with
  many small layers. An engine that is faster than its layers at the limits counts as being at them. Nor is the limit a
  hard one: convolutions reached up to {most:.0%} of the matrix product's rate.
- **reached by a matrix product** and **by a copy**: `cxr-trt benchmark` prints the same for any engine.

## Where the time goes

By OpenVINO's own profile, medians of {profiled} runs. "reached" is in multiplications per second for convolutions
and in bytes per second for the others, as a part of what the matrix product or the copy reaches.

{kinds}

## What was aimed at, and what was reached

On the processor of [the benchmark](benchmark.md) ({benchmark_machine}), medians of the ratios of each of its few
rounds, for the engine alone and from files to a table. "could be" is how many times faster the engine alone would be at
the limits on the processor of this page.

{targets}

{verdict}
{on_avx2}

## What is kept

{kept}

## What was tried

Measured in turn with the engines above, which do without it. What brings less than a twentieth does not pay; "moves" is
the largest difference of a probability from that engine's on one X-ray.

{tried}

From [the rewrites of the graph](rewrites.md), float32 with OpenVINO, each added to what precedes it there:

{rewrites}

- Three of them are kept for what needs them or costs nothing: sharing the early layers needs the pooling first, joining
  in chunks needs the folded norms, and averaged maps leave a layer with a twelfth of the channels.
- **One crop after the other in int8**: not possible, OpenVINO gives wrong probabilities for quantized layers in a loop.
- **Reading grey in the first convolution**, which sees three channels that differ by constants: it takes {stem:.1%} of
  the time in float32, so with a third of its multiplications the engine would be at most {grey:.2f} times faster.
"""

KEPT = """\
Measured in turn with the engine above, which has it; "moves" is the largest difference of a probability on one X-ray.
It is a pass over an int8 graph, `cxr_trt/precision/int8_features.py`, for ten crops only, and only where the layers
around int8 compute in float32. [What it does to the AUC](parity-features.md).

{table}"""
NOTHING_KEPT = """\
Int8 engines for ten crops keep the features of dense blocks in int8 where the layers around them compute in float32
(`cxr_trt/precision/int8_features.py`). No engine on this page has them."""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=7, help="In which all engines take turns.")
@click.option(
    "--int8",
    type=click.Path(path_type=Path, exists=True),
    help="An engine of the shipped network `paper` in int8, for its calibration; without it, no row is in int8, and "
    "nothing that was tried is timed.",
)
def measure(rounds: int, int8: Path | None) -> Result:
    """Time engines in every precision of this processor, whole and layer by layer, and rewrites that were left out."""
    graph = ScoringGraph.load(PAPER_MODEL)
    plan8 = PrecisionPlan.from_json((int8 / PRECISION_FILE).read_text(encoding="utf-8")) if int8 else None
    return study(graph, plan8, preprocess(radiograph(), graph.spec.image_size)[None, None], rounds)


def study(graph: ScoringGraph, plan8: PrecisionPlan | None, image: npt.NDArray[np.uint8], rounds: int) -> Result:
    """What `measure` returns, for a graph with ten crops, and an X-ray uint8 [1, 1, height, width]."""
    shipped, changed = shipped_engines(graph, plan8), changed_engines(graph, plan8)
    seconds, probabilities = time_in_turn({**shipped, **changed}, graph, image, rounds)
    peaks = {precision: measure_cpu_peaks(precision) for precision in dict.fromkeys(map(precision_of, shipped))}
    return {
        "rounds": rounds,
        "precisions": list(BACKEND.precisions),
        "peaks": {
            name: {"multiplications": own.operations[name] / 2, "bandwidth": own.bandwidth}
            for name, own in peaks.items()
        },
        "engines": {
            label: {
                "seconds": seconds[label],
                "kinds": by_kind(*profile(engine, image), peaks[precision_of(label)], precision_of(label)),
            }
            for label, engine in shipped.items()
        },
        "changed": [
            {
                "engine": label,
                "change": change,
                "seconds": seconds[label, change],
                "times_faster": statistics.median(
                    b / a for a, b in zip(seconds[label, change], seconds[label], strict=True)
                ),
                "moved": float(np.abs(probabilities[label, change] - probabilities[label]).max()),
            }
            for label, change in changed
        ],
    }


def page(result: Result) -> str:
    """The page of a result."""
    compared = _committed("benchmark")
    float32 = result["engines"]["ten-crop, fp32"]
    stem = float32["kinds"][CONVOLUTIONS[7, 7]]["seconds"] / layers_seconds(float32)
    return TEXT.format(
        headline=_headline(result),
        rounds=result["rounds"],
        missing=_missing(result),
        engines=_engines_table(result),
        most=max(
            sums["multiplications"] / sums["seconds"] / result["peaks"][precision_of(label)]["multiplications"]
            for label, own in result["engines"].items()
            for sums in own["kinds"].values()
        ),
        copied=COPIED_BYTES >> 20,
        profiled=PROFILED_RUNS,
        kinds="\n\n".join(_kinds_table(label, own, result) for label, own in result["engines"].items()),
        benchmark_machine=compared["machine"],
        targets=targets_table(result, compared),
        verdict=verdict(result, compared),
        on_avx2=on_avx2(_committed("benchmark-avx2")),
        kept=_kept(result),
        tried=_tried_table(result),
        rewrites=_rewrites_table(_committed("rewrites")),
        stem=stem,
        grey=1 / (1 - stem * 2 / 3),
    )


def _committed(name: str) -> Result:
    result: Result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _headline(result: Result) -> str:
    parts = []
    for label, own in result["engines"].items():
        layers = layers_seconds(own)
        convolved = sum(kind["seconds"] for name, kind in own["kinds"].items() if name.endswith(CONVOLUTION_ENDINGS))
        parts.append(f"{label}: {limit_range(own, 1)} times the limit, {convolved / layers:.0%} of it in convolutions")
    return f"{'; '.join(parts)}."


def _missing(result: Result) -> str:
    missing = [name for name in ("bf16", "int8") if not any(precision_of(own) == name for own in result["engines"])]
    reasons = {"bf16": "this processor does not multiply bfloat16", "int8": "no engine in int8 was given"}
    return " ".join(f"There are no rows in {name}: {reasons[name]}." for name in missing)


def _engines_table(result: Result) -> str:
    rows = []
    for label, own in result["engines"].items():
        (taken, limit), peaks = engine_and_limit(own), result["peaks"][precision_of(label)]
        times = (taken, layers_seconds(own), limit)
        rates = f"{peaks['multiplications'] / 1e9:.0f} G/s", f"{peaks['bandwidth'] / 1e9:.1f} GB/s"
        rows.append((label, *(f"{1000 * value:.0f}" for value in times), limit_range(own), *rates))
    columns = ("engine", "ms per X-ray", "ms of its layers", "ms at the limits", "times the limit")
    return markdown_table((*columns, "reached by a matrix product", "by a copy"), rows)


def _kinds_table(label: str, own: Result, result: Result) -> str:
    peaks, taken = result["peaks"][precision_of(label)], layers_seconds(own)
    rows = []
    for kind, sums in own["kinds"].items():
        if sums["multiplications"]:
            rate, unit, most = sums["multiplications"] / sums["seconds"], "G/s", peaks["multiplications"]
        else:
            rate, unit, most = sums["bytes"] / sums["seconds"], "GB/s", peaks["bandwidth"]
        cells = (f"{1000 * sums['seconds']:.1f}", f"{sums['seconds'] / taken:.0%}", f"{rate / 1e9:.1f} {unit}")
        limit = min(sums["seconds"], sums["limit"])
        rows.append((kind, str(int(sums["layers"])), *cells, f"{rate / most:.0%}", f"{1000 * limit:.1f}"))
    return markdown_table((label, "layers", "ms", "share", "rate", "reached", "ms at the limit"), rows)


def _kept(result: Result) -> str:
    """What int8 features bring where engines have them."""
    without = [own for own in result["changed"] if own["change"] == FLOAT_FEATURES]
    rows = []
    for own in without:
        shipped = result["engines"][own["engine"]]["seconds"]
        gain = statistics.median(a / b for a, b in zip(own["seconds"], shipped, strict=True))
        pays = "pays" if gain >= MIN_GAIN else "does not pay"
        cells = (f"{1000 * statistics.median(own['seconds']):.0f}", f"{gain:.2f}", pays, f"{own['moved']:.1e}")
        rows.append((own["engine"], INT8_FEATURES, *cells))
    columns = ("engine", "rewrite", "ms without it", "times faster with it", "", "moves")
    return KEPT.format(table=markdown_table(columns, rows)) if rows else NOTHING_KEPT


def _tried_table(result: Result) -> str:
    rows = []
    for own in result["changed"]:
        if own["change"] == FLOAT_FEATURES:
            continue
        pays = "pays" if own["times_faster"] >= MIN_GAIN else "does not pay"
        numbers = (f"{1000 * statistics.median(own['seconds']):.0f}", f"{own['times_faster']:.2f}", pays)
        rows.append((own["engine"], own["change"], *numbers, f"{own['moved']:.1e}"))
    return markdown_table(("engine", "change", "ms", "times faster", "", "moves"), rows)


def _rewrites_table(result: Result) -> str:
    own = {label: value["times_faster"] for label, value in result["seconds_per_xray"]["openvino"].items()}
    rows = []
    for label, before in ALONE.items():
        gain = own[label] / own[before]
        pays = "pays" if gain >= MIN_GAIN else "does not pay by itself"
        rows.append((rewrites.MEANINGS[label], f"{gain:.2f}", pays))
    return markdown_table(("rewrite", "times faster", ""), rows)
