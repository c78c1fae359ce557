"""Divide X-rays so that boxes can be learned without a leak, in five folds over the patients who have boxes.

    python -m train.boxed_folds 1 --labels Data_Entry_2017_v2020.csv --boxes BBox_List_2017.csv --out fold1.csv

Li et al. (2018) learn from four fifths of NIH's boxes and are tested on the last fifth. All boxed images are test
images of the official split, so a network that learns boxes has seen its test. Here patients with boxes are divided
into five folds: those of the fold are in the test, the others in training. Other patients are divided as in "random by
patient". A patient is on one side only. Each fold has a test of its own, and none of them is the official one.
"""

import csv
import sys
from pathlib import Path

import click

from cxr_trt.errors import CxrTrtError, UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.outputs import replacing
from cxr_trt.tables.boxes import read_boxes
from train.data import UNKNOWN, DataSet, order_of_groups, random_split, read_data

FOLDS = 5
path_option = click.Path(path_type=Path)


@click.command()
@click.argument("fold", type=click.IntRange(1, FOLDS))
@click.option(
    "--labels", type=path_option, required=True, help="NIH's Data_Entry_2017_v2020.csv, or a table of labels."
)
@click.option("--boxes", type=path_option, required=True, help="NIH's BBox_List_2017.csv, or a table of boxes.")
@click.option("--seed", default=0, help="Of both divisions. Default: 0.")
@click.option("--out", type=path_option, required=True, help="The table of labels to write, with a column `split`.")
def main(fold: int, labels: Path, boxes: Path, seed: int, out: Path) -> None:
    """Write a table of labels whose test has the patients of FOLD, 1 to 5, among those with boxes."""
    try:
        data = read_data(labels, None, seed, "random by patient")
        splits = boxed_split(data, {Path(box.image).stem for box in read_boxes(boxes)}, fold, seed)
        _write(data, splits, out)
    except CxrTrtError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(
        f"{splits.count('train')} train, {splits.count('val')} val, {splits.count('test')} test in {out}", err=True
    )


def boxed_split(data: DataSet, boxed: set[str], fold: int, seed: int) -> list[str]:
    """Train, val or test for each image.

    Args:
        data: the images with their patients.
        boxed: names without suffix of the images that have boxes.
        fold: 1 to FOLDS.
        seed: of both divisions.

    Raises:
        UsageError: fewer patients with boxes than folds.
    """
    patients = {patient for name, patient in zip(data.names, data.patients, strict=True) if Path(name).stem in boxed}
    if len(patients) < FOLDS:
        raise UsageError(f"{len(patients)} patients have boxes, but {FOLDS} folds need as many")
    tested = set(order_of_groups(patients, seed)[fold - 1 :: FOLDS])
    others = [row for row, patient in enumerate(data.patients) if patient not in patients]
    splits = ["test" if patient in tested else "train" for patient in data.patients]
    for row, split in zip(others, random_split([data.patients[row] for row in others], seed), strict=True):
        splits[row] = split
    return splits


def _write(data: DataSet, splits: list[str], out: Path) -> None:
    with replacing(out) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "patient_id", "split", *FINDINGS])
        for name, patient, split, labels in zip(data.names, data.patients, splits, data.labels, strict=True):
            writer.writerow([name, patient, split, *("" if label == UNKNOWN else label for label in labels)])


if __name__ == "__main__":
    main(prog_name="python -m train.boxed_folds")
