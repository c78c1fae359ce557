"""Whether every system learns: each trained by its own recipe, shrunk to what a CPU does in minutes, then scored.

It is a check of recipes, losses, stages, export and scoring on real X-rays, and no comparison of systems. All of it
takes hours, so what the committed result has of the same recipe and split is not measured again.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.study import RESULTS, ROOT, Result, cxr14_option
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.evaluate.auc import Floats, evaluate
from cxr_trt.export.from_checkpoint import export_checkpoint
from cxr_trt.findings import FINDINGS
from cxr_trt.hashing import hash_fields
from cxr_trt.images.load import load_images
from cxr_trt.markdown import markdown_table
from cxr_trt.measure.machine import describe_machine
from cxr_trt.model.weights_file import read_weights
from cxr_trt.outputs import replacing
from cxr_trt.score.engine import Engine
from cxr_trt.systems import SYSTEMS, find_system
from cxr_trt.words import quantity
from train.data import DataSet, read_data
from train.recipe import Recipe, read_recipe
from train.run import train_recipe

PACKAGES = ("torch", "onnxruntime")
BACKEND = "onnxruntime"
BATCH = 16
EPOCHS = 4  # of each stage
SCORED_AT_A_TIME = 30
SIZES = {
    "paper": (112, 96),
    "wang2017-resnet50": (96, 96),
    "yao2017-a": (128, 128),
    "yao2017-b2": (128, 128),
    "chexnet-2017": (96, 96),
    "li2018-bags": (96, 96),
    "agcnn-resnet50": (112, 96),
    "yao2018": (128, 128),
    "dnetloc": (256, 256),
    "edge": (144, 128),
}
"""Pixels of the resized image and of its crops, by recipe.

DNetLoc's added convolutions quarter its 256 pixels. The pooling of edge takes ten cells, and 96 pixels have nine.
"""
UNTRAINED = {"rubin2018": "needs a frontal and a lateral X-ray of each study, which ChestX-ray14 has not"}
"""Systems without a row, and why."""
TEXT = """\
# Do the systems learn?

**{headline}**

A check, not a ranking. Each system is trained by its own recipe, shrunk to what a CPU does in minutes: {train} training
images of a subset of ChestX-ray14, {epochs} epochs of {steps} steps of {batch} images, small pictures, random weights
at the start. The best epoch by {val} validation images becomes a scoring graph, which scores the subset's {test} test
images with ONNX Runtime, one view per X-ray. An AUC whose interval lies above 0.5 shows that recipe, loss, export and
scoring work together.

{table}

- The mean is over {findings} findings, with its 95 % interval from {resamples} resamples of {patients} patients.
- The order of the rows is that of [the list of systems](../reference/systems.md), where the published results are.
  Rates and schedules are those of the full size, which suits some systems better than others after so few steps; many
  start from ImageNet's weights in their publications.
- Besides sizes, batch and epochs, nothing in a recipe is changed: a rate that is cut after more epochs is never cut
  here; shifts by pixels shrink with the picture, annealing with the epochs. Each of AG-CNN's stages has as many epochs.
  All train in float32.
- Not here: {untrained}.
- The subset has more findings than usual, and the sources of its images have different findings, so no AUC here can be
  compared with one on the whole official test set.
"""


@click.command()
@cxr14_option
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=ROOT / "build" / "systems",
    help="Where trainings and scores are kept, so that a study that was stopped continues.",
)
@click.option(
    "--only", multiple=True, type=click.Choice(list(SIZES)), help="Train only these; the others if they are finished."
)
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, help="For a trial: train for fewer.")
@click.option("--limit", type=click.IntRange(BATCH), help="For a trial: only the first N images of each split.")
@click.option("--resamples", type=click.IntRange(0), default=1000, help="For the intervals.")
@click.option("--anew", is_flag=True, help="Measure what the committed result has, too.")
def measure(
    data: Path, folder: Path, only: Sequence[str], epochs: int, limit: int | None, resamples: int, anew: bool
) -> Result:
    """Train each system that is not finished, and evaluate all that are."""
    images = _first(read_data(data / "labels.csv"), limit)
    test = images.rows("test")
    committed = {} if anew else json.loads((RESULTS / "systems.json").read_text(encoding="utf-8"))["systems"]
    found: dict[str, Result | None] = dict.fromkeys(SIZES)
    for name in SIZES:
        recipe = small_recipe(name, epochs)
        if (row := committed.get(name)) and row["training_sha256"] == hash_fields(_identity(recipe, images)):
            found[name] = row
            continue
        file = folder / name / "scores.json"
        if not _is_finished(file, recipe, images) and name in (only or SIZES):
            _train_and_score(recipe, images, data / "images", file)
        if _is_finished(file, recipe, images):
            found[name] = _evaluated(json.loads(file.read_text(encoding="utf-8")), images, resamples)
    return {
        "images": {split: len(images.rows(split)) for split in ("train", "val", "test")},
        "patients": len({images.patients[row] for row in test}),
        "epochs": epochs,
        "resamples": resamples,
        "systems": found,
    }


def small_recipe(name: str, epochs: int) -> Recipe:
    """A recipe with small pictures and batches, and this many epochs, or this many for each of its stages."""
    recipe = read_recipe(name)
    image_size, crop_size = SIZES[name]
    changes: dict[str, Any] = {
        "image_size": image_size,
        "crop_size": crop_size,
        "batch": BATCH,
        "accumulate": 1,
        "bfloat16": False,
        "translation": recipe.translation * crop_size / recipe.crop_size,
        "anneal": recipe.anneal * epochs // recipe.epochs,
    }
    stages = tuple(dataclasses.replace(stage, epochs=epochs, **changes) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages, epochs=epochs, **changes)


def _first(images: DataSet, limit: int | None) -> DataSet:
    """The first images of each split."""
    kept = np.sort(np.concatenate([images.rows(split)[:limit] for split in ("train", "val", "test")]))
    names, patients, splits = (
        tuple(values[row] for row in kept) for values in (images.names, images.patients, images.splits)
    )
    return DataSet(names, patients, splits, images.labels[kept], images.traits[kept])


def _is_finished(file: Path, recipe: Recipe, images: DataSet) -> bool:
    """Whether the file has scores of this training."""
    return file.exists() and json.loads(file.read_text(encoding="utf-8"))["identity"] == _identity(recipe, images)


def _identity(recipe: Recipe, images: DataSet) -> Result:
    identity: Result = json.loads(json.dumps({"recipe": recipe.chosen(), "split": images.split_hash}))
    return identity


def _train_and_score(recipe: Recipe, images: DataSet, folder: Path, file: Path) -> None:
    """Train, or continue; score the test images with the exported graph; write all that matters to the file."""
    cache = file.parents[1] / "cache"
    checkpoint = train_recipe(recipe, images, folder, file.parent, cache=cache, device="cpu")
    exported = export_checkpoint(checkpoint, view_set="center" if recipe.image_size > recipe.crop_size else None)
    paths = [folder / images.names[row] for row in images.rows("test")]
    scores: list[Floats] = []
    with tempfile.TemporaryDirectory() as name:
        build_bundle(BuildRequest(exported.graph, BACKENDS[BACKEND]), Path(name, "e.cxr"))
        with Engine(Path(name, "e.cxr")) as engine:
            for start in range(0, len(paths), SCORED_AT_A_TIME):
                part = load_images(paths[start : start + SCORED_AT_A_TIME], engine.spec.image_size, engine.spec.fit)
                scores.extend(engine.run(part).probabilities.astype(np.float64))
    training = read_weights(checkpoint)[0]["training"]
    content = {
        "identity": _identity(recipe, images),
        "best_epoch": training["epoch"],
        "val_mean_auc": training["val_mean_auc"],
        "difference_from_pytorch": exported.difference,
        "probabilities": np.array(scores).tolist(),
    }
    with replacing(file) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def _evaluated(scored: Result, images: DataSet, resamples: int) -> Result:
    test = images.rows("test")
    patients = [images.patients[row] for row in test]
    evaluation = evaluate(FINDINGS, scored["probabilities"], images.labels[test] == 1, patients, resamples=resamples)
    return {
        "training_sha256": hash_fields(scored["identity"]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "setting": scored["identity"]["recipe"]["setting"],
        **{key: scored[key] for key in ("best_epoch", "val_mean_auc", "difference_from_pytorch")},
        "mean_auc": evaluation.mean_auc,
        "low": evaluation.low,
        "high": evaluation.high,
        "findings": len(evaluation.findings) - len(evaluation.left_out),
    }


def page(result: Result) -> str:
    """The page of a result."""
    measured = {name: own for name, own in result["systems"].items() if own is not None}
    images = result["images"]
    rows = []
    for name, (image_size, crop_size) in SIZES.items():
        pixels = f"{crop_size} of {image_size}" if crop_size < image_size else f"{image_size}"
        own = measured.get(name)
        cells = _cells(own) if own else ("not measured", "", "", "")
        rows.append((find_system(read_recipe(name).setting).title, f"`{name}`", pixels, *cells))
    mean = f"mean AUC, {images['test']}-image subset"
    columns = ("system", "recipe", "pixels", mean, "95 % interval", "best epoch", "measured")
    return TEXT.format(
        headline=_headline(measured, len(SIZES)),
        **images,
        epochs=result["epochs"],
        steps=images["train"] // BATCH,
        batch=BATCH,
        table=markdown_table(columns, rows),
        findings=" or ".join(map(str, sorted({own["findings"] for own in measured.values()}))),
        resamples=result["resamples"],
        patients=result["patients"],
        untrained="; ".join(f"{_title(name)} {reason}" for name, reason in UNTRAINED.items()),
    )


def _title(name: str) -> str:
    return next(system.title for system in SYSTEMS if system.name == name)


def _cells(own: Result) -> tuple[str, str, str, str]:
    return f"{own['mean_auc']:.3f}", _interval(own), str(own["best_epoch"]), f"{own['date']}, {own['machine']}"


def _interval(own: Result) -> str:
    return "" if own["low"] is None else f"{own['low']:.3f} to {own['high']:.3f}"


def _headline(measured: dict[str, Result], recipes: int) -> str:
    learned = [name for name, own in measured.items() if own["low"] is not None and own["low"] > 0.5]
    others = [f"`{name}`" for name in measured if name not in learned]
    text = f"{len(learned)} of {quantity(recipes, 'recipe')} are seen to learn"
    if others:
        which = f"intervals of {' and '.join(others)} reach" if len(others) > 1 else f"interval of {others[0]} reaches"
        text += f"; the {which} down to 0.5"
    if missing := recipes - len(measured):
        text += f"; {missing} not measured"
    return text + "."
