"""Train a network.

    python -m train paper --labels Data_Entry_2017_v2020.csv --images images/ --imagenet densenet121.pth --out run/

The same command again continues a run that was stopped. `cxr-trt export` takes `best.safetensors`. On several GPUs:
`torchrun --nproc-per-node 4 -m train ...`.
"""

import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import click
import numpy as np
import torch

from cxr_trt.errors import CxrTrtError, UsageError
from cxr_trt.memory import keep_freed_memory
from cxr_trt.outputs import check_folder, locked
from cxr_trt.systems import find_system
from train.batches import LabelledImages
from train.cache import cached_images
from train.data import DataSet, find_images, read_data
from train.group import Group
from train.imagenet import load_imagenet
from train.loop import STATE_FILE, Trainer
from train.recipe import Recipe, read_recipe
from train.start import start_weights

path_option = click.Path(path_type=Path)


@click.command()
@click.argument("recipe")
@click.option(
    "--labels", type=path_option, required=True, help="NIH's Data_Entry_2017_v2020.csv, or a table of labels."
)
@click.option("--images", type=path_option, required=True, help="The folder of images.")
@click.option(
    "--lists", type=path_option, help="The folder of NIH's two lists of images. Default: that of NIH's label file."
)
@click.option("--out", type=path_option, required=True, help="The folder to write to, or in which to continue.")
@click.option("--cache", type=path_option, help="The folder for decoded images. Default: OUT/cache.")
@click.option("--imagenet", type=path_option, help="torchvision's file of the backbone. Default: random weights.")
@click.option("--start", type=path_option, help="A checkpoint or scoring graph (.onnx) to start from.")
@click.option("--device", type=click.Choice(("cpu", "cuda")), help="Default: a GPU if there is one.")
def main(
    recipe: str,
    labels: Path,
    images: Path,
    lists: Path | None,
    out: Path,
    cache: Path | None,
    imagenet: Path | None,
    start: Path | None,
    device: str | None,
) -> None:
    """Train with RECIPE: a name in train/recipes or a .toml file."""
    try:
        _run(recipe, labels, images, lists, out, cache, imagenet, start, device)
    except CxrTrtError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("stopped; the same command again continues", err=True)
        sys.exit(130)


def _run(
    name: str,
    labels: Path,
    images: Path,
    lists: Path | None,
    out: Path,
    cache: Path | None,
    imagenet: Path | None,
    start: Path | None,
    device: str | None,
) -> None:
    keep_freed_memory()
    recipe = read_recipe(name)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no GPU here; leave the option out to train on the CPU")
    if imagenet and start:
        raise UsageError("--imagenet and --start exclude each other; give one of them")
    check_folder(out)
    data = read_data(labels, lists, recipe.seed, recipe.split)
    cache = cache or out / "cache"
    with Group(device or ("cuda" if torch.cuda.is_available() else "cpu")) as group:
        if recipe.split == "random by image" and group.first:
            click.echo(
                "warning: split by image: X-rays of a patient are on both sides, so each AUC is too high", err=True
            )
        for stage in recipe.stages or (recipe,):
            check_folder(out / stage.part)
            _train(stage, data, images, out / stage.part, cache, imagenet, start, group)
            group.wait()
            start, imagenet = out / stage.part / "best.safetensors", None


def _train(
    recipe: Recipe,
    data: DataSet,
    images: Path,
    out: Path,
    cache: Path,
    imagenet: Path | None,
    start: Path | None,
    group: Group,
) -> None:
    def say(sentence: str) -> None:
        if group.first:
            click.echo(sentence, err=True)

    sizes = Counter(data.splits)
    part = f"{recipe.part}: " if recipe.part else ""
    say(f"{part}{sizes['train']} training and {sizes['val']} validation images, on {group.size} x {group.device.type}")
    rows = np.concatenate([data.rows("train"), data.rows("val")])
    paths = find_images(images, [data.names[row] for row in rows])
    if group.first:
        cached_images(paths, recipe.image_size, cache, _report)
    group.wait()
    pixels = cached_images(paths, recipe.image_size, cache, _report)
    torch.manual_seed(recipe.seed)
    network = find_system(recipe.setting).build(recipe.setting)
    if start and not (out / STATE_FILE).exists():
        network.load_state_dict(start_weights(start, recipe.setting))
    if imagenet and not (out / STATE_FILE).exists():
        random = load_imagenet(network, imagenet)
        say(f"starting from ImageNet weights, except for {', '.join(random)}")
    first, second = np.arange(sizes["train"]), np.arange(sizes["train"], len(rows))
    source = LabelledImages(pixels, data.labels[rows], data.traits[rows], recipe.crop_size)
    with locked(out / "lock") if group.first else nullcontext():
        Trainer(recipe, network, source, first, second, data.split_hash, out, group).run()
    best = {"loss": "the least validation loss", "auc": "the highest validation AUC"}[recipe.select]
    say(f"the weights with {best}: {out / 'best.safetensors'}")


def _report(done: int, total: int) -> None:
    if done == total or done % 1000 < 16:
        click.echo(f"decoded {done} of {total} images", err=True)


if __name__ == "__main__":
    main(prog_name="python -m train")
