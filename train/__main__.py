"""Train a network.

    python -m train paper --labels Data_Entry_2017_v2020.csv --images images/ --imagenet densenet121.pth --out run/

The same command again continues a run that was stopped. `cxr-trt export` takes `best.safetensors`. On several GPUs:
`torchrun --nproc-per-node 4 -m train ...`.
"""

import sys
from pathlib import Path

import click

from cxr_trt.errors import CxrTrtError, UsageError
from cxr_trt.memory import keep_freed_memory
from cxr_trt.outputs import check_folder
from train.data import read_data
from train.inner_teacher import InnerTeachers
from train.recipe import read_recipe
from train.run import Device, train_recipe
from train.teacher import read_teachers

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
@click.option("--boxes", type=path_option, help="Radiologists' boxes, for a recipe with box_weight.")
@click.option(
    "--teacher",
    type=path_option,
    multiple=True,
    help="Table of scores of the training images, for a recipe with teacher. Several are averaged.",
)
@click.option(
    "--inner-teacher",
    type=path_option,
    multiple=True,
    help="Checkpoint whose class maps or features are learned, for a recipe with map_teacher or feature_teacher.",
)
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
    boxes: Path | None,
    teacher: tuple[Path, ...],
    inner_teacher: tuple[Path, ...],
    device: Device | None,
) -> None:
    """Train with RECIPE: a name in train/recipes or a .toml file."""
    try:
        keep_freed_memory()
        chosen = read_recipe(recipe)
        if imagenet and start:
            raise UsageError("--imagenet and --start exclude each other; give one of them")
        check_folder(out)
        data = read_data(labels, lists, chosen.seed, chosen.split)
        learned = [data.names[row] for row in data.rows("train")]
        taught = read_teachers(teacher, learned, labels) if teacher else None
        train_recipe(
            chosen,
            data,
            images,
            out,
            cache=cache,
            imagenet=imagenet,
            start=start,
            boxes=boxes,
            taught=taught,
            inner_teachers=InnerTeachers(inner_teacher) if inner_teacher else None,
            device=device,
        )
    except CxrTrtError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("stopped; the same command again continues", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main(prog_name="python -m train")
