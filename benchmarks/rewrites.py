"""Seconds per X-ray of the CPU backends, and what each exact rewrite of the graph brings, with the network `paper`.

All engines score the same picture in turn, in one process, so that what else the machine does affects all alike.
"""

import statistics
from dataclasses import replace

import click
import onnx

from benchmarks.study import PAPER_MODEL, Result
from cxr_trt.engine.choice import Timed, time_engines
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.crops_in_turn import score_crops_in_turn
from cxr_trt.export.rewrites import NO_REWRITES, Rewrites
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.markdown import markdown_table

PACKAGES = ("onnxruntime", "openvino")
REWRITES = {
    "none": NO_REWRITES,
    "average_maps": replace(NO_REWRITES, average_maps=True),
    "fold_norms": replace(NO_REWRITES, fold_norms=True),
    "pool_first": replace(NO_REWRITES, pool_first=True),
    "all but share_crops": Rewrites(share_crops=False),
    "all but chunk_concats": Rewrites(),
    "all but crops_in_turn": Rewrites(chunk_concats=True),
    "all": Rewrites(chunk_concats=True),
}
MEANINGS = {
    "none": "the scoring graph as it is",
    "average_maps": "the maps of a finding averaged into one",
    "fold_norms": "batch norms folded into convolutions",
    "pool_first": "pooling before the convolution of a transition",
    "all but share_crops": "these three together",
    "all but chunk_concats": "these three, and the early layers once for all crops",
    "all but crops_in_turn": "these four, and features joined after every four dense layers",
    "all": "all of these, and one crop after the other",
}
TEXT = """\
# What rewriting the graph brings

**{headline}**

An engine is not built from the scoring graph as it is, but from a graph that computes less and gives the same numbers,
except for rounding. Seconds per X-ray with ten crops in float32, medians of {rounds} rounds in turn, and how many times
faster that is than the scoring graph as it is (median of the ratios of each round).

{table}
"""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=7, help="In which all engines take turns.")
def measure(rounds: int) -> Result:
    """Time an engine for each rewrite and each CPU backend."""
    graph = ScoringGraph.load(PAPER_MODEL)
    engines = {
        (name, label): Timed(BACKENDS[name], _rewritten(graph, label)) for name in PACKAGES for label in REWRITES
    }
    seconds = time_engines(engines, graph.spec, rounds)
    summaries = {
        name: {label: _summary(seconds[name, label], seconds[name, "none"]) for label in REWRITES} for name in PACKAGES
    }
    return {"rounds": rounds, "seconds_per_xray": summaries}


def _rewritten(graph: ScoringGraph, label: str) -> onnx.ModelProto:
    model = graph.rewritten(REWRITES[label])
    return score_crops_in_turn(model) if label == "all" else model


def _summary(values: list[float], plain: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "times_faster": round(statistics.median(b / a for a, b in zip(values, plain, strict=True)), 3),
    }


def page(result: Result) -> str:
    """The page of a result."""
    measured: dict[str, Result] = result["seconds_per_xray"]
    rows = [
        (MEANINGS[label], *(cell for own in measured.values() for cell in _cells(own[label])))
        for label in next(iter(measured.values()))
    ]
    columns = ("", *(cell for name in measured for cell in (name, "times faster")))
    best = (f"{own['all']['times_faster']:.2f} times with {name}" for name, own in measured.items())
    return TEXT.format(
        headline=f"All rewrites together make scoring faster: {', '.join(best)}.",
        rounds=result["rounds"],
        table=markdown_table(columns, rows),
    )


def _cells(own: dict[str, float]) -> tuple[str, str]:
    return f"{own['median']:.2f}", f"{own['times_faster']:.2f}"
