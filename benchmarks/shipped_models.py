"""The demonstration networks that come with the package, beside each other: how fast, how large and how good.

Speed is measured here, engine alone. What else the page says is from their evaluations and the study of localization.
"""

import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.study import RESULTS, Result
from benchmarks.tools.demonstration_targets import targets_table
from benchmarks.tools.pictures import radiograph
from cxr_trt.commands.sources import DEFAULT_NETWORK, MODELS, SHIPPED
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.localization import Accuracy, shown
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.preprocess import preprocess
from cxr_trt.markdown import markdown_table
from cxr_trt.precision import Precision
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.score.engine import Engine
from cxr_trt.views import ViewSet

PACKAGES = ("openvino", "onnxruntime")
VIEW_SETS: tuple[ViewSet, ...] = ("ten-crop", "five-crop", "center")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MIN_TIMES_FASTER = 5.0  # edge beside paper, with ten crops in float32
TEXT = """\
# The shipped models beside each other

**With ten crops in float32, edge takes {edge:.0f} ms per X-ray and paper {paper:.0f} ms: it is {times:.1f}
times as fast.**

Both are demonstrations, trained on 1,868 X-rays; `make demo`, and `cxr-trt score` without an engine, use `{default}`.

| | {names} |
| --- | {rule} |
| file, MB | {megabytes} |
| mean AUC on {images} test images, ten crops | {aucs} |
| boxes with the highest point of the map in them | {pointing} |
| boxes that the map agrees with, IoU 0.1 | {overlap} |
| card | {cards} |

For the image's centre, which knows nothing of the X-ray, the two shares of boxes are {centre_pointing} and
{centre_overlap} ([where they look](localization.md)).

Milliseconds per X-ray from memory to probabilities, medians of {rounds} rounds, in which all engines took turns.
"times faster" is the median of the ratios of each round.

{speeds}

## What was aimed at

{targets}

**Why the AUC is missed.** There are too few X-rays: [each doubling of them brings little, and many doublings are
missing](learning-curve.md). **Why the maps are no better than the centre.** They learn from labels alone, and from as
few X-rays.

What was tried:

- ImageNet's weights, more pixels, augmentation, averaged weights, auxiliary targets, a pooling of more cells: these are
  in the [recipes](../guide/training.md) of the shipped networks.
- [Learning from other networks](distillation.md), and from several of them: probabilities, class maps and features.
- [Other pooling, smaller cells, equivariance, self-supervision on the X-rays, the maps and features of other networks,
  and EfficientNet-Lite2](map-training.md).
- [Other views](views-edge.md), and [crops of varying size](views-dense.md).
"""


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=11, help="In which all engines take turns.")
def measure(rounds: int) -> Result:
    """Time an engine of each model for each CPU backend, view set and precision."""
    graphs = {name: ScoringGraph.load(path) for name, path in SHIPPED.items()}
    seconds: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as opened:
        engines = {}
        for backend in ("openvino", "onnxruntime"):
            for precision in PRECISIONS:
                for views in VIEW_SETS if precision in BACKENDS[backend].precisions else ():
                    for name, graph in graphs.items():
                        bundle = Path(opened.enter_context(tempfile.TemporaryDirectory()), "e.cxr")
                        plan = PrecisionPlan(precision)
                        build_bundle(BuildRequest(graph.with_views(views), BACKENDS[backend], plan), bundle)
                        engines[f"{backend}, {views}, {precision}", name] = opened.enter_context(Engine(bundle))
        pictures = {name: preprocess(radiograph(), graph.spec.image_size)[None] for name, graph in graphs.items()}
        for number in range(rounds + 1):
            for (kind, name), engine in engines.items():
                start = time.perf_counter()
                engine.run(pictures[name])
                if number:  # the first run of an engine is slower
                    seconds.setdefault(kind, {}).setdefault(name, []).append(time.perf_counter() - start)
    megabytes = {name: path.stat().st_size / 1e6 for name, path in SHIPPED.items()}
    return {"rounds": rounds, "megabytes": megabytes, "seconds": seconds}


def times_faster(own: dict[str, list[float]]) -> float:
    """How many times faster edge is than paper, in one kind of engine."""
    return statistics.median(b / a for a, b in zip(own["edge"], own["paper"], strict=True))


def problems(result: Result) -> list[str]:
    """What is not as it should be, a sentence each."""
    own = result["seconds"][_fastest(result)]
    if (times := times_faster(own)) >= MIN_TIMES_FASTER:
        return []
    return [f"{_fastest(result)}: edge is {times:.1f} times as fast as paper, not {MIN_TIMES_FASTER:g} times"]


def _fastest(result: Result) -> str:
    """The kind of ten-crop engine in float32 in which paper is faster."""
    kinds: list[str] = [kind for kind in result["seconds"] if kind.endswith("ten-crop, fp32")]
    return min(kinds, key=lambda kind: statistics.median(result["seconds"][kind]["paper"]))


def page(result: Result) -> str:
    """The page of a result."""
    names = list(result["megabytes"])
    evaluations = {name: _read(MODELS / f"{name}-evaluation.json") for name in names}
    maps = _read(RESULTS / "localization.json")["methods"]
    milliseconds = {
        kind: {name: 1000 * statistics.median(values) for name, values in own.items()}
        for kind, own in result["seconds"].items()
    }
    rows = [
        (kind, *(f"{own[name]:.0f}" for name in ("edge", "paper")), f"{times_faster(result['seconds'][kind]):.1f}")
        for kind, own in milliseconds.items()
    ]
    fastest = _fastest(result)
    return TEXT.format(
        **milliseconds[fastest],
        times=times_faster(result["seconds"][fastest]),
        default=DEFAULT_NETWORK,
        names=" | ".join(names),
        rule=" | ".join("---" for _ in names),
        megabytes=" | ".join(f"{value:.1f}" for value in result["megabytes"].values()),
        images=evaluations[DEFAULT_NETWORK]["n"],
        aucs=" | ".join(
            f"{own['mean_auc']:.3f} ({own['mean_low']:.3f} to {own['mean_high']:.3f})" for own in evaluations.values()
        ),
        pointing=" | ".join(_share(maps[f"{name}, ten crops"], "pointing") for name in names),
        overlap=" | ".join(_share(maps[f"{name}, ten crops"], "IoU 0.1") for name in names),
        cards=" | ".join(f"`cxr_trt/models/{name}-card.md`" for name in names),
        centre_pointing=_share(maps["image centre"], "pointing"),
        centre_overlap=_share(maps["image centre"], "IoU 0.1"),
        rounds=result["rounds"],
        targets=targets_table(evaluations, maps, times_faster(result["seconds"][fastest]), MIN_TIMES_FASTER),
        speeds=markdown_table(("backend, views, precision", "edge", "paper", "times faster"), rows),
    )


def _read(path: Path) -> Result:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result


def _share(own: Result, measure_name: str) -> str:
    return shown(Accuracy(**own["mean"][measure_name]))
