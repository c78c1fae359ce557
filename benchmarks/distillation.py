"""Networks that others taught, beside those that are shipped.

A student is a checkpoint of a training with `--teacher`. Which of its epochs was kept, the validation images decided.
"""

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.study import Result, cxr14_option
from cxr_trt.commands.sources import SHIPPED
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.comparison import compare_areas
from cxr_trt.export.from_checkpoint import export_checkpoint
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.model.weights_file import read_weights
from cxr_trt.score.engine import Engine
from cxr_trt.views import ViewSet
from train.data import DataSet, read_data

PACKAGES = ("torch", "openvino")
BACKEND = "openvino"
VIEWS: ViewSet = "center"
SPLITS = ("val", "test")
BATCH = 8
TEXT = """\
# Students beside what is shipped

**{headline}**

A student learns a mixture of the labels and of what other networks, its teachers, say of the same X-rays
(`python -m train --teacher`, [training](../guide/training.md#learning-from-other-networks)), and, where the table says
so, the patterns of their class maps and features too (`--inner-teacher`). The teachers here: {teachers}.
Each student is held against the shipped network of its kind, on the {val} validation X-rays, which decide which epoch
is kept and whether the student is shipped, and on the {test} test X-rays, which decide nothing. A student is shipped if
its AUC on the validation X-rays is higher by more than chance can explain, as is that of {shipped}.

{table}

Mean AUC over the findings with both classes, of the centre crop. "share" is the teachers' part in what is learned;
"maps" and "features", the weights of those losses.
"difference" is the student's AUC less that of the shipped network, with its 95 % interval from {resamples} resamples of
patients. **What differs is more than the teacher**: a student has another recipe too, and one of `paper` goes on from
the shipped weights. All are demonstrations, trained on {train} X-rays.
"""


@click.command()
@cxr14_option
@click.option("--student", type=click.Path(path_type=Path), multiple=True, required=True, help="A checkpoint.")
@click.option("--teachers", required=True, help="What they were, for the page.")
@click.option("--limit", type=click.IntRange(2), help="For a trial: only the first N images of each split.")
@click.option("--resamples", type=click.IntRange(1), default=1000, help="For the intervals.")
def measure(data: Path, student: tuple[Path, ...], teachers: str, limit: int | None, resamples: int) -> Result:
    """Score validation and test images with each student and with the shipped network of its setting."""
    images = read_data(data / "labels.csv")
    rows = {split: images.rows(split)[:limit] for split in SPLITS}
    trainings = [_training(path) for path in student]
    settings = [training["recipe"]["setting"] for training in trainings]
    shipped = {name: _scores(ScoringGraph.load(SHIPPED[name]), images, rows, data) for name in dict.fromkeys(settings)}
    measured = []
    for path, training, setting in zip(student, trainings, settings, strict=True):
        own = _scores(export_checkpoint(path, view_set=VIEWS).graph, images, rows, data)
        areas = {
            split: _difference(images, rows[split], shipped[setting][split], own[split], resamples) for split in SPLITS
        }
        measured.append({"training": training, **areas})
    sizes = {split: len(own) for split, own in rows.items()}
    return {
        "teachers": teachers,
        "images": {**sizes, "train": len(images.rows("train"))},
        "resamples": resamples,
        "students": measured,
    }


def _training(path: Path) -> dict[str, Any]:
    """What the checkpoint says of its training."""
    training: dict[str, Any] = read_weights(path)[0].get("training", {})
    recipe = training.get("recipe", {})
    if not any(recipe.get(kind) for kind in ("teacher", "map_teacher", "feature_teacher")):
        raise click.UsageError(
            f"{path}: was trained without a teacher; give a checkpoint of a training with --teacher or --inner-teacher"
        )
    if recipe["setting"] not in SHIPPED:
        raise click.UsageError(f"{path}: no network {recipe['setting']} is shipped; give one of {', '.join(SHIPPED)}")
    return training


def _scores(
    graph: ScoringGraph, images: DataSet, rows: dict[str, npt.NDArray[np.int64]], data: Path
) -> dict[str, Floats]:
    """Probabilities [N, 14] by split."""
    found: dict[str, Floats] = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "e.cxr")
        build_bundle(BuildRequest(graph.with_views(VIEWS), BACKENDS[BACKEND]), bundle)
        with Engine(bundle) as engine:
            for split, own in rows.items():
                parts = []
                for start in range(0, len(own), BATCH):
                    paths = [data / "images" / images.names[row] for row in own[start : start + BATCH]]
                    pixels = load_images(paths, graph.spec.image_size, graph.spec.fit)
                    parts.append(engine.run(pixels).probabilities)
                found[split] = np.concatenate(parts).astype(np.float64)
    return found


def _difference(images: DataSet, rows: npt.NDArray[np.int64], a: Floats, b: Floats, resamples: int) -> Result:
    patients = np.array([images.patients[row] for row in rows])
    return vars(compare_areas(FINDINGS, a, b, images.labels[rows] == 1, patients, resamples, 0).mean)


def page(result: Result) -> str:
    """The page of a result."""
    rows = []
    for own in result["students"]:
        training = own["training"]
        recipe = training["recipe"]
        epochs = f"{training['epoch']} of {recipe['epochs']}"
        sizes = f"{recipe['crop_size']} of {recipe['image_size']}"
        rows.append(
            (
                f"`{recipe['setting']}`",
                f"{recipe['teacher']:g}",
                *(f"{recipe.get(name, 0):g}" for name in ("map_teacher", "feature_teacher")),
                sizes,
                epochs,
                *_cells(own, "val"),
                *_cells(own, "test"),
            )
        )
    columns = ("network", "share", "maps", "features", "crop of image, pixels", "epochs")
    of_splits = ("validation: shipped", "student", "difference", "test: shipped", "student", "difference")
    return TEXT.format(
        headline=_headline(result),
        shipped=f"{sum(own['val']['low'] > 0 for own in result['students'])} of these {len(result['students'])}",
        table=markdown_table((*columns, *of_splits), rows),
        teachers=result["teachers"],
        resamples=result["resamples"],
        **{split: f"{count:,}" for split, count in result["images"].items()},
    )


def _cells(own: Result, split: str) -> tuple[str, str, str]:
    area = own[split]
    difference = f"{area['difference']:+.4f} ({area['low']:+.4f} to {area['high']:+.4f})"
    return f"{area['a']:.4f}", f"{area['b']:.4f}", difference


def _headline(result: Result) -> str:
    sentences = []
    for own in result["students"]:
        area, recipe = own["val"], own["training"]["recipe"]
        verdict = "more than chance" if area["low"] > 0 or area["high"] < 0 else "which chance can explain"
        inside = [f"{part}s" for part in ("map", "feature") if recipe.get(f"{part}_teacher")]
        further = f", taught {' and '.join(inside)} too," if inside else ""
        name = f"{recipe['setting']} at {recipe['image_size']} pixels{further}"
        sentences.append(f"{name} differs by {area['difference']:+.3f} on the validation X-rays, {verdict}")
    return f"The AUC of a student less that of the shipped network: {'; '.join(sentences)}."
