"""What each view set costs and how well it scores, on the test images of the ChestX-ray14 subset: docs/views.md.

    make frontier     wants CXR14_DIR; half an hour on two processors

All view sets score the same image in turn, in one process, so that what else the machine does hits all alike.
"""

import csv
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.result import ROOT, made_by, provenance, table, write
from cxr_trt.engine.backend import BuildOptions
from cxr_trt.score.engine import Engine
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats, evaluate
from cxr_trt.evaluate.comparison import compare_areas, compare_probabilities
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.views import VIEW_SETS, ViewSet

REFERENCE: ViewSet = "ten-crop"
TEXT = """\
What of an X-ray the network sees is a choice when an engine is built (`cxr-trt build-engine --views`). All sets here
were measured with the same weights, {model}, on the same {images} images ({patients} patients): test images of
ChestX-ray14, from a subset that is enriched for findings, so that the AUC is not comparable with one on the whole
official test set. Differences are to ten crops, the paper's evaluation and the default, with 95 % intervals from
{resamples} resamples of patients.

{frontier}
`times faster`: than ten crops, the engine alone ({backend}, float32), all sets interleaved; the median over the images.
Seconds an X-ray: [benchmark](benchmark.md). `rank correlation`: with the probabilities of ten crops, the mean and the
least over the findings. On the frontier: no other set is both faster and better. {verdict}

## AUC of each finding, less that of ten crops

{findings}
"""


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=ROOT / "cxr_trt" / "models" / "demo.onnx")
@click.option("--title", default="the shipped demonstration model", show_default=True, help="What the page calls it.")
@click.option("--target", default="frontier", show_default=True, help="Of make, which calls this.")
@click.option("--views", "view_sets", multiple=True, type=click.Choice(VIEW_SETS), help="Besides ten-crop. [all]")
@click.option("--data", type=click.Path(path_type=Path), default=os.environ.get("CXR14_DIR"), required=True)
@click.option("--backend", "backend_name", type=click.Choice(["openvino", "onnxruntime"]), default="openvino")
@click.option("--limit", type=click.IntRange(2), help="Take only so many images: for a trial.")
@click.option("--resamples", type=click.IntRange(0), default=1000)
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results/views.json")
@click.option("--page", type=click.Path(path_type=Path), default=ROOT / "docs" / "views.md")
def main(
    model: Path,
    title: str,
    target: str,
    view_sets: tuple[ViewSet, ...],
    data: Path,
    backend_name: str,
    limit: int | None,
    resamples: int,
    json_path: Path,
    page: Path,
) -> None:
    """Measure, and write both files."""
    made = provenance(("onnx", backend_name))
    view_sets = (REFERENCE, *(view_set for view_set in view_sets or VIEW_SETS if view_set != REFERENCE))
    graph, info = read_scoring_graph(model)
    names, patients, labels = read_test_side(data / "labels.csv", limit)
    images = load_images([data / "images" / name for name in names], info.spec.image_size, info.spec.fit)
    with ExitStack() as stack:
        engines = {view_set: _engine(graph, info, view_set, backend_name, stack) for view_set in view_sets}
        scores, seconds = score_interleaved(engines, images)
    result = {
        **made,
        "backend": backend_name,
        "model": title,
        "target": target,
        "checkpoint_sha256": info.checkpoint_sha256,
        "images": len(names),
        "patients": len(set(patients)),
        "resamples": resamples,
        "views": {
            view_set: summary(view_set, scores, seconds, labels, patients, names, resamples) for view_set in view_sets
        },
    }
    write(result, json_path, to_markdown(result), page)
    click.echo(page.read_text(encoding="utf-8"))


def read_test_side(path: Path, limit: int | None) -> tuple[list[str], list[str], npt.NDArray[np.bool_]]:
    """Names, patients and labels [N, 14] of the test images; the first `limit` of them."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"][:limit]
    labels = np.array([[row[finding] == "1" for finding in FINDINGS] for row in rows])
    return [row["image"] for row in rows], [row["patient_id"] for row in rows], labels


def _engine(graph: Any, info: GraphInfo, view_set: ViewSet, backend_name: str, stack: ExitStack) -> Engine:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    options = BuildOptions(1)
    build_bundle(
        *with_views(graph, info, view_set), BACKENDS[backend_name], folder / "views.cxr", options, overwrite=False
    )
    return stack.enter_context(Engine(folder / "views.cxr"))


def score_interleaved(
    engines: dict[ViewSet, Engine], images: npt.NDArray[np.uint8]
) -> tuple[dict[ViewSet, Floats], dict[ViewSet, list[float]]]:
    """Probabilities [N, 14] and seconds an image of each engine; each begins as often as any other."""
    order = list(engines)
    scores: dict[ViewSet, list[Any]] = {view_set: [] for view_set in order}
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
) -> dict[str, Any]:
    """What is said of a view set: its time, its AUC, and how both differ from ten crops."""
    own, reference = scores[view_set], scores[REFERENCE]
    evaluation = evaluate(own, labels, patients, resamples=resamples)
    areas = compare_areas(reference, own, labels, patients, resamples, 0)
    ranks = [r for r in compare_probabilities(reference, own, names).rank_correlation.values() if r is not None]
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


def frontier(measured: dict[str, dict[str, Any]]) -> list[str]:
    """The view sets for which no other is at least as fast and at least as good, and better in one of the two."""

    def beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
        at_least = one["times_faster"] >= other["times_faster"] and one["mean_auc"] >= other["mean_auc"]
        return at_least and (one["times_faster"], one["mean_auc"]) != (other["times_faster"], other["mean_auc"])

    return [name for name, own in measured.items() if not any(beats(other, own) for other in measured.values())]


def to_markdown(result: dict[str, Any]) -> str:
    """The page of a result."""
    measured = result["views"]
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
        (finding, own["positives"], *(_with_interval(measured[name]["findings"][finding]) for name in others))
        for finding, own in measured[REFERENCE]["findings"].items()
    ]
    text = TEXT.format(
        **{key: result[key] for key in ("model", "images", "patients", "resamples", "backend")},
        frontier=table(columns, rows),
        verdict=f"On it: {', '.join(f'`{name}`' for name in best)}.",
        findings=table(("finding", "positives", *(f"`{name}`" for name in others)), by_finding),
    )
    command = f"make {result['target']}"
    return f"# View sets\n\n{text}\n{made_by(command, result)}"


def _with_interval(difference: dict[str, Any]) -> str:
    if difference["difference"] is None:
        return "undefined"
    if difference["low"] is None:
        return f"{difference['difference']:+.4f}"
    return f"{difference['difference']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.frontier")
