"""The label file of ChestX-ray14 as NIH publishes it: Data_Entry_2017.csv and Data_Entry_2017_v2020.csv."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS

IMAGE, LABELS, PATIENT = "Image Index", "Finding Labels", "Patient ID"
NO_FINDING = "No Finding"


def is_nih_label_file(path: Path) -> bool:
    """Whether a file begins with the header of NIH's label file."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            header = next(csv.reader([stream.readline()]), [])
    except OSError:
        return False
    return {IMAGE, LABELS} <= set(header)


def read_nih_labels(path: Path) -> tuple[list[str], npt.NDArray[np.bool_], list[str] | None]:
    """Read NIH's label file: findings joined by |, and "No Finding".

    Returns:
        Names [N], labels [N, 14] in the order of FINDINGS, and patients [N], None if the file has no such column.

    Raises:
        UsageError: a row is cut off or names another finding.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    labels = np.array([nih_labels(row[LABELS] or "", row[IMAGE] or "", path) for row in rows], bool)
    patients = [row[PATIENT] or "" for row in rows] if rows and PATIENT in rows[0] else None
    return [row[IMAGE] or "" for row in rows], labels, patients


def nih_labels(text: str, image: str, path: Path) -> list[bool]:
    """The cell Finding Labels of one image as 14 labels. Raises UsageError as `read_nih_labels` does."""
    if not text:
        raise UsageError(f"{path}: {image!r} has no {LABELS}; the file is cut off or damaged")
    names = [] if text == NO_FINDING else text.split("|")
    if unknown := [name for name in names if name not in FINDINGS]:
        raise UsageError(f"{path}: {unknown[0]!r} of {image!r} is none of the 14 findings of ChestX-ray14")
    return [finding in names for finding in FINDINGS]
