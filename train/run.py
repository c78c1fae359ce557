"""A training from recipe and data to `best.safetensors`, stage by stage."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import click
import numpy as np
import numpy.typing as npt
import torch

from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_folder, locked
from cxr_trt.systems import find_system
from cxr_trt.systems.li2018 import PATCHES
from cxr_trt.words import quantity
from train.batches import LabelledImages
from train.boxes import read_grids
from train.cache import cached_images
from train.data import DataSet, find_images
from train.errors import DataError
from train.group import Group
from train.imagenet import load_imagenet
from train.inner_teacher import InnerTeachers
from train.loop import STATE_FILE, Trainer
from train.recipe import Recipe
from train.start import start_weights

Device = Literal["cpu", "cuda"]


def train_recipe(
    recipe: Recipe,
    data: DataSet,
    images: Path,
    out: Path,
    *,
    cache: Path | None = None,
    imagenet: Path | None = None,
    start: Path | None = None,
    boxes: Path | None = None,
    taught: npt.NDArray[np.float32] | None = None,
    inner_teachers: InnerTeachers | None = None,
    device: Device | None = None,
) -> Path:
    """Train a network, or continue a training that was stopped.

    Args:
        recipe: what is trained and how.
        data: the images' labels and split.
        images: the folder of images.
        out: the folder to write to; each stage has one below it.
        cache: the folder for decoded images; None for one below `out`.
        imagenet: torchvision's file of the backbone; None for random weights.
        start: a checkpoint or scoring graph to start from.
        boxes: radiologists' boxes, for a recipe that learns them; those on other than training images do not matter.
        taught: a teacher's probabilities [training images, 14], for a recipe that learns them.
        inner_teachers: networks whose class maps or features are learned, for a recipe that does so.
        device: None for a GPU if there is one.

    Returns:
        The checkpoint with the best weights.

    Raises:
        UsageError: boxes or teachers are missing or not wanted, there is no GPU, `out` cannot be written, or the
            training fails.
        DataError: images are missing.
    """
    if bool(boxes) != bool(recipe.box_weight):
        raise UsageError("--boxes and a recipe with box_weight go together: the boxes, and a recipe that learns them")
    stages = recipe.stages or (recipe,)
    if {taught is not None} != {bool(stage.teacher) for stage in stages}:
        raise UsageError("--teacher and a recipe with teacher go together: the scores, and their share in the targets")
    if {inner_teachers is not None} != {bool(stage.map_teacher or stage.feature_teacher) for stage in stages}:
        raise UsageError(
            "--inner-teacher and a recipe with map_teacher or feature_teacher go together: the networks, and the "
            "weight of what is learned of them"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; leave the option out to train on the CPU")
    with Group(device or ("cuda" if torch.cuda.is_available() else "cpu")) as group:
        if recipe.split == "random by image" and group.first:
            click.echo(
                "warning: split by image: X-rays of a patient are on both sides, so each AUC is too high", err=True
            )
        for stage in stages:
            check_folder(out / stage.part)
            _train(
                stage,
                data,
                images,
                out / stage.part,
                cache or out / "cache",
                imagenet,
                start,
                boxes,
                taught,
                inner_teachers,
                group,
            )
            group.wait()
            start, imagenet = out / stage.part / "best.safetensors", None
    return out / stage.part / "best.safetensors"


def _train(
    recipe: Recipe,
    data: DataSet,
    images: Path,
    out: Path,
    cache: Path,
    imagenet: Path | None,
    start: Path | None,
    boxes: Path | None,
    taught: npt.NDArray[np.float32] | None,
    inner_teachers: InnerTeachers | None,
    group: Group,
) -> None:
    def say(sentence: str) -> None:
        if group.first:
            click.echo(sentence, err=True)

    sizes = Counter(data.splits)
    part = f"{recipe.part}: " if recipe.part else ""
    say(f"{part}{sizes['train']} training and {sizes['val']} validation images, on {group.size} x {group.device.type}")
    rows = np.concatenate([data.rows("train"), data.rows("val")])
    system = find_system(recipe.setting)
    planes = [data.names, _laterals(data)] if system.planes > 1 else [data.names]
    pixels = []
    for names in planes:
        paths = find_images(images, [names[row] for row in rows])
        if group.first:
            cached_images(paths, recipe.image_size, cache, _report)
        group.wait()
        pixels.append(cached_images(paths, recipe.image_size, cache, _report))
    torch.manual_seed(recipe.seed)
    network = system.build(recipe.setting)
    if start and not (out / STATE_FILE).exists():
        network.load_state_dict(start_weights(start, recipe.setting))
    if imagenet and not (out / STATE_FILE).exists():
        random = load_imagenet(network, imagenet)
        say(f"starting from ImageNet weights, except for {', '.join(random)}")
    grids = {}
    if boxes:
        learned = [data.names[row] for row in rows[: sizes["train"]]]
        grids = read_grids(boxes, learned, find_images(images, learned), PATCHES[recipe.setting])
        say(f"learning the boxes of {quantity(len(grids), 'training image')}")
    first, second = np.arange(sizes["train"]), np.arange(sizes["train"], len(rows))
    source = LabelledImages(pixels[0], data.labels[rows], data.traits[rows], recipe.crop_size, pixels[1:], grids)
    if taught is not None:
        source.teach(first, taught, recipe.teacher)
    with locked(out / "lock") if group.first else nullcontext():
        Trainer(recipe, network, source, first, second, data.split_hash, out, group, inner_teachers).run()
    best = {"loss": "the least validation loss", "auc": "the highest validation AUC"}[recipe.select]
    say(f"the weights with {best}: {out / 'best.safetensors'}")


def _laterals(data: DataSet) -> tuple[str, ...]:
    """The lateral X-ray of each study."""
    if not data.laterals:
        raise DataError("the label file has no column `lateral`, which names the lateral X-ray of each study")
    if "" in data.laterals:
        raise DataError(f"{data.names[data.laterals.index('')]} has no lateral X-ray; leave its row out")
    return data.laterals


def _report(done: int, total: int) -> None:
    if done == total or done % 1000 < 16:
        click.echo(f"decoded {done} of {total} images", err=True)
