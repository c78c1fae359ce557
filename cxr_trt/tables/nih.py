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
        Names [N], labels [N, 14], and patients [N], None if the file has no such column.

    Raises:
        UsageError: a row is cut off or names another finding.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    labels = np.zeros((len(rows), len(FINDINGS)), bool)
    for i, row in enumerate(rows):
        for name in filter(None, (row[LABELS] or "").split("|")):
            finding = name.strip().replace(" ", "_")
            if finding in FINDINGS:
                labels[i, FINDINGS.index(finding)] = True
            elif name.strip() != NO_FINDING:
                raise UsageError(f"{path}: {name!r} of {row[IMAGE]!r} is none of the 14 findings")
        if not row[LABELS]:
            raise UsageError(f"{path}: {row[IMAGE]!r} has no {LABELS}; the file is cut off or damaged")
    patients = [row[PATIENT] or "" for row in rows] if rows and PATIENT in rows[0] else None
    return [row[IMAGE] or "" for row in rows], labels, patients
