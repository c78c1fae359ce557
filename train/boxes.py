"""Radiologists' boxes in training (Li et al. 2018): which patches of an X-ray a finding touches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle
from cxr_trt.images import decode
from cxr_trt.images.load import read_file
from cxr_trt.tables.boxes import check_within, read_boxes
from train.errors import DataError

Grid = npt.NDArray[np.bool_]
"""[14, P, P]: for each finding the patches that its boxes touch; none for a finding without a box."""


def read_grids(boxes: Path, names: Sequence[str], paths: Sequence[Path], patches: int) -> dict[int, Grid]:
    """The grids of the images that have boxes, by their index.

    Args:
        boxes: see `cxr_trt.tables.boxes.read_boxes`; boxes of other images and findings do not matter.
        names: of the training images. The names of boxes may have another folder and suffix.
        paths: their files, in whose pixels the boxes are.
        patches: P.

    Raises:
        DataError: no box is on one of the images.
        UsageError: the table of boxes cannot be used, or a box reaches beyond its image.
    """
    row_of = {Path(name).stem: row for row, name in enumerate(names)}
    grids: dict[int, Grid] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for box in read_boxes(boxes):
        row = row_of.get(Path(box.image).stem)
        if row is None or box.finding not in FINDINGS:
            continue
        if row not in grids:
            height, width = decode(read_file(paths[row])).pixels.shape
            sizes[row] = height, width
            grids[row] = np.zeros((len(FINDINGS), patches, patches), bool)
        check_within(box, sizes[row], boxes)
        grids[row][FINDINGS.index(box.finding)] |= touched(box.rectangle, sizes[row], patches)
    if not grids:
        raise DataError(
            f"{boxes}: none of its boxes is on a training image. NIH's are all on the official split's test images; "
            "divide the X-rays with `python -m train.boxed_folds`"
        )
    return grids


def touched(box: Rectangle, size: tuple[int, int], patches: int) -> Grid:
    """The patches [P, P] of an image of this height and width that share an area with a box."""
    grid = np.zeros((patches, patches), bool)
    rows, columns = (
        slice(math.floor(start * patches / whole), math.ceil((start + length) * patches / whole))
        for start, length, whole in (
            (max(box.y, 0.0), _inside(box.y, box.height), size[0]),
            (max(box.x, 0.0), _inside(box.x, box.width), size[1]),
        )
    )
    grid[rows, columns] = True
    return grid


def _inside(start: float, length: float) -> float:
    """The length of what lies behind 0."""
    return length + min(start, 0.0)


def grid_bytes(grids: Mapping[int, Grid]) -> Iterator[bytes]:
    """What identifies grids, to be hashed."""
    for row in sorted(grids):
        yield row.to_bytes(8, "little") + np.packbits(grids[row]).tobytes()
