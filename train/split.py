"""Write one split as a folder of images and a table of labels, for `cxr-trt score` and `cxr-trt evaluate`.

    python -m train.split test --labels Data_Entry_2017_v2020.csv --images images/ --out test/

makes test/images with links to the images, and test/labels.csv.
"""

import csv
import sys
from pathlib import Path
from typing import get_args

import click

from cxr_trt.errors import CxrTrtError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import check_folder, replacing
from cxr_trt.systems.system import Split
from train.data import SPLITS, UNKNOWN, DataSet, find_images, read_data

path_option = click.Path(path_type=Path)


@click.command()
@click.argument("split", type=click.Choice(SPLITS))
@click.option(
    "--labels", type=path_option, required=True, help="NIH's Data_Entry_2017_v2020.csv, or a table of labels."
)
@click.option("--images", type=path_option, required=True, help="The folder of images.")
@click.option(
    "--lists", type=path_option, help="The folder of NIH's two lists of images. Default: that of NIH's label file."
)
@click.option(
    "--split",
    "kind",
    type=click.Choice(get_args(Split)),
    default="official",
    help='As in the recipe. Default: "official". By image, patients are on both sides, and every AUC is too high.',
)
@click.option("--seed", default=0, help="The recipe's seed, for a random split. Default: 0.")
@click.option("--out", type=path_option, required=True, help="The folder to write to.")
def main(split: str, labels: Path, images: Path, lists: Path | None, kind: Split, seed: int, out: Path) -> None:
    """Write the images and labels of SPLIT."""
    try:
        count = write_split(read_data(labels, lists, seed, kind), split, images, out)
    except CxrTrtError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{count} {split} images in {out}", err=True)


def write_split(data: DataSet, split: str, images: Path, out: Path) -> int:
    """Link the images of `split` into out/images and write out/labels.csv.

    Returns:
        The number of images.

    Raises:
        DataError: images are missing.
        UsageError: `out` cannot be written.
    """
    rows = data.rows(split)
    names = [data.names[row] for row in rows]
    paths = find_images(images, names)
    check_folder(out / "images")
    for name, path in zip(names, paths, strict=True):
        link = out / "images" / Path(name).name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    with replacing(out / "labels.csv") as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", *FINDINGS])
        for name, row in zip(names, rows, strict=True):
            labels = ("" if label == UNKNOWN else label for label in data.labels[row])
            writer.writerow([Path(name).name, data.patients[row], *labels])
    return len(rows)


if __name__ == "__main__":
    main(prog_name="python -m train.split")
