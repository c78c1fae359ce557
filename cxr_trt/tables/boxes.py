"""Reading boxes that radiologists drew, and finding the X-rays of a table that they are on."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cxr_trt.errors import UsageError
from cxr_trt.findings import listed, same_findings
from cxr_trt.geometry import Rectangle
from cxr_trt.hashing import hash_file
from cxr_trt.tables.matching import match

BOX_COLUMNS = ("image", "finding", "x", "y", "width", "height")
NIH_FIRST_COLUMN = "Image Index"  # in BBox_List_2017.csv, whose header names fewer columns than its rows have
NIH_FINDING_NAMES = {"Infiltrate": "Infiltration"}
MAX_OVERHANG = 1.0  # pixels by which a box may reach beyond its X-ray, because of rounding


class Box(NamedTuple):
    """A box of one finding on one image, in pixels of the image's file."""

    image: str
    finding: str
    rectangle: Rectangle


class PlacedBoxes(NamedTuple):
    """The boxes of a file on the X-rays of a table.

    by_path: by path of the X-ray, the index of the finding and the box in pixels of the X-ray's file.
    sha256: of the file of boxes.
    """

    by_path: Mapping[str, Sequence[tuple[int, Rectangle]]]
    sha256: str


def read_boxes(path: Path) -> list[Box]:
    """Read a CSV with the columns image, finding, x, y, width and height, or NIH's BBox_List_2017.csv.

    Raises:
        UsageError: it cannot be read, or a row has an invalid box.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header, *rows = csv.reader(stream)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such table") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a table of boxes ({error}); give a .csv file") from error
    if header[:1] == [NIH_FIRST_COLUMN]:
        places = list(range(len(BOX_COLUMNS)))
    elif missing := [name for name in BOX_COLUMNS if name not in header]:
        raise UsageError(f"{path}: has no column {', '.join(missing)}; it needs {', '.join(BOX_COLUMNS)}")
    else:
        places = [header.index(name) for name in BOX_COLUMNS]
    return [_box([row[place] for place in places], path) for row in rows if len(row) > max(places)]


def _box(cells: list[str], path: Path) -> Box:
    image, finding, *texts = cells
    finding = NIH_FINDING_NAMES.get(finding, finding)
    try:
        x, y, width, height = map(float, texts)
    except ValueError:
        width = height = x = y = math.nan
    if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
        raise UsageError(
            f"{path}: the box of {finding} on {image!r} is {', '.join(texts)}; its width and height must be above 0"
        )
    return Box(image, finding, Rectangle(y, x, height, width))


def check_within(box: Box, size: tuple[int, int], path: Path) -> None:
    """Raise UsageError if a box reaches beyond its X-ray, which means that it was drawn in another size of the file."""
    y, x, height, width = box.rectangle
    if min(x, y) < -MAX_OVERHANG or x + width > size[1] + MAX_OVERHANG or y + height > size[0] + MAX_OVERHANG:
        raise UsageError(
            f"{path}: the box of {box.finding} on {box.image!r} reaches beyond its {size[1]} x {size[0]} "
            "pixels; give boxes in pixels of the files that were scored"
        )


def place_boxes(path: Path, paths: list[str], source: str | Path, findings: Sequence[str]) -> PlacedBoxes:
    """Read the boxes of a file and find those of these X-rays and findings.

    Args:
        path: the file of boxes.
        paths: of the X-rays.
        source: where the X-rays come from, for messages.
        findings: of the network.

    Raises:
        UsageError: as `read_boxes` does; or no box is of such a finding and on such an X-ray.
    """
    boxes = read_boxes(path)
    names = same_findings([box.finding for box in boxes], findings)
    if not names:
        found = listed(list(dict.fromkeys(box.finding for box in boxes)))
        raise UsageError(f"{path}: its findings ({found}) are none of {source}; name them so: {listed(findings)}")
    by_image: dict[str, list[tuple[int, Rectangle]]] = {}
    for box in boxes:
        if box.finding in names:
            by_image.setdefault(box.image, []).append((findings.index(names[box.finding]), box.rectangle))
    images = list(by_image)
    partners = match(paths, images, source, path)
    by_path = {own: by_image[images[place]] for own, place in zip(paths, partners, strict=True) if place is not None}
    if not by_path:
        raise UsageError(
            f"{path}: none of its images is in {source}; the names must be equal except for folder and suffix"
        )
    return PlacedBoxes(by_path, hash_file(path))
