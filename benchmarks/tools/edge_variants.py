"""Networks `edge` that differ in one thing each, and their training, which continues where it stopped."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import timm
import torch

from benchmarks.tools.inner_teachers import TaughtInside
from benchmarks.tools.networks import lite_weights
from benchmarks.tools.self_supervision import self_supervise
from cxr_trt.model.edge import EdgeNetwork
from cxr_trt.model.weights_file import read_weights
from cxr_trt.outputs import replacing
from cxr_trt.spec import Pooling
from cxr_trt.systems.edge import MAPS_PER_FINDING, POOLING, TIMM_NAMES
from cxr_trt.views import NETWORK_STRIDE
from train.batches import LabelledImages
from train.cache import cached_images
from train.data import DataSet, find_images
from train.group import Group
from train.imagenet import load_imagenet
from train.loop import STATE_FILE, Trainer
from train.recipe import Recipe, read_recipe


@dataclass(frozen=True)
class Variant:
    """What a network has in place of what `edge` has.

    k: of the pooling.
    cell: pixels per cell of a map.
    equivariance: weight of the loss of that name.
    unlabelled_epochs: of self-supervision before the training.
    teachers: names of variants whose maps and features are learned too.
    setting: of the system `edge`.
    """

    text: str
    k: int = POOLING.k_max
    cell: int = NETWORK_STRIDE
    equivariance: float = 0.0
    unlabelled_epochs: int = 0
    teachers: tuple[str, ...] = ()
    setting: str = "edge"


BASE = "edge"
HALF = "half of the cells"
VARIANTS = {
    BASE: Variant("the recipe `edge`: pooling of the 10 highest and lowest of 64 cells"),
    "one cell": Variant("pooling of the highest and the lowest cell alone, as in the paper", k=1),
    HALF: Variant("pooling of 32 of 64 cells", k=32),
    "small cells": Variant("the last block at a stride of 16 pixels, dilated; pooling of 40 of 256 cells", 40, 16),
    "equivariance": Variant(
        "maps must not depend on where the crop is cut (recipe `edge-equivariant`)", equivariance=1
    ),
    "self-supervised": Variant(
        "before it sees labels, the network learns for 5 epochs to see two crops of an X-ray alike (SimSiam, Chen and "
        "He 2021)",
        unlabelled_epochs=5,
    ),
    "taught inside": Variant(
        f"besides the labels, it learns the class maps and the features that `{BASE}` and `{HALF}` have, on average "
        "(distillation as in FitNets, Romero et al. 2015)",
        teachers=(BASE, HALF),
    ),
    "lite2": Variant("EfficientNet-Lite2 in place of Lite0 (`edge-lite2`)", setting="edge-lite2"),
}


@dataclass(frozen=True)
class Study:
    """What all variants are trained on.

    folder: of the images. kept: where trainings are kept. limit: at most so many images of each split.
    """

    images: DataSet
    folder: Path
    kept: Path
    epochs: int
    limit: int | None

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Rows of `images`."""
        return self.images.rows(split)[: self.limit]

    def trained(self, name: str) -> EdgeNetwork:
        """Train, or continue; the weights with the highest validation AUC."""
        variant, out = VARIANTS[name], self._out(name)
        recipe, rows = recipe_of(variant, self.epochs), {split: self.rows(split) for split in ("train", "val")}
        both = np.concatenate(list(rows.values()))
        paths = find_images(self.folder, [self.images.names[row] for row in both])
        pixels = cached_images(paths, recipe.image_size, self.kept / "cache", lambda *_: None)
        source = LabelledImages(pixels, self.images.labels[both], self.images.traits[both], recipe.crop_size)
        train, val = np.arange(len(rows["train"])), np.arange(len(rows["train"]), len(both))
        teachers = [self.trained(teacher) for teacher in variant.teachers]
        click.echo(f"{name}: {variant.text}", err=True)
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        network = network_of(variant)
        if not (out / STATE_FILE).exists():
            load_imagenet(network, lite_weights(variant.setting))
            if variant.unlabelled_epochs:
                self._self_supervise(network, pixels, train, recipe, variant, out / "unlabelled.pt")
        with Group("cpu") as group:
            trainer = Trainer(recipe, network, source, train, val, self.images.split_hash, out, group)
            if teachers:
                trainer.objective = TaughtInside(trainer, teachers)
            trainer.run()
        network.load_state_dict(read_weights(out / "best.safetensors")[1])
        return network.eval()

    def is_finished(self, name: str) -> bool:
        """Whether the training of this variant has reached its last epoch."""
        last = self._out(name) / "last.safetensors"
        return last.exists() and bool(read_weights(last)[0]["training"]["epoch"] == self.epochs)

    def _out(self, name: str) -> Path:
        return self.kept / name.replace(" ", "-")

    def _self_supervise(
        self,
        network: EdgeNetwork,
        pixels: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64],
        recipe: Recipe,
        variant: Variant,
        kept: Path,
    ) -> None:
        if kept.exists():
            network.load_state_dict(torch.load(kept, weights_only=True))
            return
        self_supervise(network, pixels, rows, recipe, variant.unlabelled_epochs)
        with replacing(kept) as partial:
            torch.save(network.state_dict(), partial)


def recipe_of(variant: Variant, epochs: int) -> Recipe:
    """The recipe `edge`, shortened, with what the variant changes in it."""
    return dataclasses.replace(
        read_recipe(BASE),
        setting=variant.setting,
        epochs=epochs,
        anneal=epochs // 2,
        equivariance=variant.equivariance,
    )


def network_of(variant: Variant) -> EdgeNetwork:
    """The network of a variant, with random weights."""
    network = EdgeNetwork(TIMM_NAMES[variant.setting], MAPS_PER_FINDING, Pooling(variant.k, variant.k, POOLING.alpha))
    if variant.cell != NETWORK_STRIDE:
        network.features = timm.create_model(
            TIMM_NAMES[variant.setting], num_classes=0, global_pool="", output_stride=variant.cell
        )
    return network
