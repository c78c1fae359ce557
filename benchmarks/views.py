"""What each view set costs and how well it scores, on the test images of the ChestX-ray14 subset.

All view sets score the same image in turn, in one process, so that what else the machine does affects all alike.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.study import PAPER_MODEL, ROOT, Result, cxr14_option
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats, evaluate
from cxr_trt.evaluate.comparison import compare_areas, compare_probabilities
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.score.engine import Engine
from cxr_trt.views import CROP_VIEW_SETS, ViewSet

PACKAGES = ("onnx", "openvino")
BACKEND = "openvino"
REFERENCE: ViewSet = "ten-crop"
TEXT = """\
# {title}

**{headline}**

The view set decides which parts of an X-ray the network sees; it is chosen when an engine is built (`cxr-trt
build-engine --views`). All view sets here have the same weights ({model}) and score the same {images} images of
{patients} patients: test images of ChestX-ray14, from a subset with more findings than usual, so that the AUC cannot
be compared with one on the whole official test set. Differences are to ten crops, the paper's evaluation and the
default, with 95 % intervals from {resamples} resamples of patients.

{frontier}

- **times faster**: than ten crops, for the engine alone ({backend}, float32), all view sets in turn; the median over
  the images. Seconds per X-ray: [benchmark](benchmark.md).
- **rank correlation**: with the probabilities of ten crops; the mean over the findings, and the lowest.
- **on the frontier**: no other view set is both faster and better.

## AUC per finding, compared with ten crops

{findings}
"""
TITLES = {
    "paper": "View sets",
    "edge": "View sets of the network edge",
    "demo-dense": "View sets after training for dense views",
}
MODELS = {
    "paper": "the shipped network `paper`",
    "edge": "the shipped network `edge`",
    "demo-dense": "the shipped network `paper` after one more epoch on crops of varying size, recipe `demo-dense`",
}
"""By the recipe of the training before; without one, the shipped network."""


@click.command()
@click.option("--network", type=click.Choice(list(SHIPPED)), default="paper", help="One of those that are shipped.")
@click.option("--recipe", type=click.Choice(["demo-dense"]), help="Train the network `paper` further first.")
@click.option(
    "--views", "view_sets", multiple=True, type=click.Choice(CROP_VIEW_SETS), help="Besides ten-crop. Default: all."
)
@cxr14_option
@click.option("--limit", type=click.IntRange(2), help="For a trial: only the first N images.")
@click.option("--resamples", type=click.IntRange(0), default=1000, help="For the intervals.")
def measure(
    network: str,
    recipe: str | None,
    view_sets: tuple[ViewSet, ...],
    data: Path,
    limit: int | None,
    resamples: int,
) -> Result:
    """Score the test images with each view set."""
    graph = ScoringGraph.load(_train(recipe, data) if recipe else SHIPPED[network])
    chosen = (REFERENCE, *(view_set for view_set in view_sets or CROP_VIEW_SETS if view_set != REFERENCE))
    names, patients, labels = read_test_side(data / "labels.csv", limit)
    images = load_images([data / "images" / name for name in names], graph.spec.image_size, graph.spec.fit)
    with ExitStack() as stack:
        engines = {view_set: _engine(graph, view_set, stack) for view_set in chosen}
        scores, seconds = score_interleaved(engines, images)
    return {
        "backend": BACKEND,
        "model": recipe or network,
        "checkpoint_sha256": graph.info.checkpoint_sha256,
        "images": len(names),
        "patients": len(set(patients)),
        "resamples": resamples,
        "views": {
            view_set: summary(view_set, scores, seconds, labels, patients, names, resamples) for view_set in chosen
        },
    }


def _train(recipe: str, data: Path) -> Path:
    """The scoring graph of the network `paper`, trained further."""
    folder = ROOT / "build" / recipe
    model, checkpoint = folder / f"{recipe}.onnx", folder / "last.safetensors"
    images = ["--labels", data / "labels.csv", "--images", data / "images"]
    for arguments in (
        ["train", recipe, *images, "--out", folder, "--start", PAPER_MODEL],
        ["train.publish", checkpoint, model],
    ):
        subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True, cwd=ROOT)
    return model


def read_test_side(path: Path, limit: int | None) -> tuple[list[str], list[str], npt.NDArray[np.bool_]]:
    """Names, patients and labels [N, 14] of the test images; the first `limit` of them."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"][:limit]
    labels = np.array([[row[finding] == "1" for finding in FINDINGS] for row in rows])
    return [row["image"] for row in rows], [row["patient_id"] for row in rows], labels


def _engine(graph: ScoringGraph, view_set: ViewSet, stack: ExitStack) -> Engine:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    build_bundle(BuildRequest(graph.with_views(view_set), BACKENDS[BACKEND]), folder / "views.cxr")
    return stack.enter_context(Engine(folder / "views.cxr"))


def score_interleaved(
    engines: dict[ViewSet, Engine], images: npt.NDArray[np.uint8]
) -> tuple[dict[ViewSet, Floats], dict[ViewSet, list[float]]]:
    """Probabilities [N, 14] and seconds per image of each engine; each begins as often as any other."""
    order = list(engines)
    scores: dict[ViewSet, list[Floats]] = {view_set: [] for view_set in order}
    seconds: dict[ViewSet, list[float]] = {view_set: [] for view_set in order}
    for engine in engines.values():
        engine.run(images[:1])  # the first run of an engine is slower
    for i, image in enumerate(images):
        for view_set in order[i % len(order) :] + order[: i % len(order)]:
            start = time.perf_counter()
            outputs = engines[view_set].run(image[None])
            seconds[view_set].append(time.perf_counter() - start)
            scores[view_set].append(outputs.probabilities[0])
    return {view_set: np.array(rows, np.float64) for view_set, rows in scores.items()}, seconds


def summary(
    view_set: ViewSet,
    scores: dict[ViewSet, Floats],
    seconds: dict[ViewSet, list[float]],
    labels: npt.NDArray[np.bool_],
    patients: list[str],
    names: list[str],
    resamples: int,
) -> Result:
    """The time of a view set, its AUC, and how both differ from ten crops."""
    own, reference = scores[view_set], scores[REFERENCE]
    evaluation = evaluate(FINDINGS, own, labels, patients, resamples=resamples)
    areas = compare_areas(FINDINGS, reference, own, labels, patients, resamples, 0)
    ranks = [
        r for r in compare_probabilities(FINDINGS, reference, own, names).rank_correlation.values() if r is not None
    ]
    ratios = [a / b for a, b in zip(seconds[REFERENCE], seconds[view_set], strict=True)]
    return {
        "times_faster": statistics.median(ratios),
        "mean_auc": evaluation.mean_auc,
        "low": evaluation.low,
        "high": evaluation.high,
        "difference": vars(areas.mean),
        "findings": {name: vars(difference) for name, difference in areas.findings.items()},
        "rank_correlation": {"mean": float(np.mean(ranks)), "least": min(ranks)},
    }


def frontier(measured: dict[str, Result]) -> list[str]:
    """The view sets for which no other is at least as fast and at least as good, and better in one of the two."""

    def beats(one: Result, other: Result) -> bool:
        at_least = one["times_faster"] >= other["times_faster"] and one["mean_auc"] >= other["mean_auc"]
        return at_least and (one["times_faster"], one["mean_auc"]) != (other["times_faster"], other["mean_auc"])

    return [name for name, own in measured.items() if not any(beats(other, own) for other in measured.values())]


def page(result: Result) -> str:
    """The page of a result."""
    measured: dict[str, Result] = result["views"]
    best = frontier(measured)
    rows = [
        (
            f"`{name}`",
            f"{own['times_faster']:.2f}",
            f"{own['mean_auc']:.4f}",
            _with_interval(own["difference"]) if name != REFERENCE else "",
            f"{own['rank_correlation']['mean']:.3f}, {own['rank_correlation']['least']:.3f}",
            "yes" if name in best else "no",
        )
        for name, own in sorted(measured.items(), key=lambda item: -item[1]["times_faster"])
    ]
    columns = ("views", "times faster", "mean AUC", "difference", "rank correlation", "on the frontier")
    others = [name for name in measured if name != REFERENCE]
    by_finding = [
        (finding, str(own["positives"]), *(_with_interval(measured[name]["findings"][finding]) for name in others))
        for finding, own in measured[REFERENCE]["findings"].items()
    ]
    return TEXT.format(
        title=TITLES[result["model"]],
        headline=_headline(measured),
        model=MODELS[result["model"]],
        **{key: result[key] for key in ("images", "patients", "resamples", "backend")},
        frontier=markdown_table(columns, rows),
        findings=markdown_table(("finding", "positives", *(f"`{name}`" for name in others)), by_finding),
    )


def _headline(measured: dict[str, Result]) -> str:
    found = (
        f"`{name}` is {own['times_faster']:.1f} times as fast with {own['difference']['difference']:+.4f} mean AUC"
        for name, own in sorted(measured.items(), key=lambda item: -item[1]["times_faster"])
        if name != REFERENCE and name in frontier(measured)
    )
    return f"Compared with ten crops: {', '.join(found)}."


def _with_interval(difference: Result) -> str:
    if difference["difference"] is None:
        return "undefined"
    if difference["low"] is None:
        return f"{difference['difference']:+.4f}"
    return f"{difference['difference']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
