"""Boxes that radiologists drew, held against class maps from the folder of heat maps."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.localization import Localization, hits, localize
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, strongest_region
from cxr_trt.results.raw_maps import read_raw_maps
from cxr_trt.tables.reading import match, read_labels, read_paths

BOX_COLUMNS = ("image", "finding", "x", "y", "width", "height")
NIH_FIRST_COLUMN = "Image Index"  # of BBox_List_2017.csv, whose header has a name less than its rows have numbers
NIH_FINDING_NAMES = {"Infiltrate": "Infiltration"}
MAX_OVERHANG = 1.0  # pixels that a box may reach beyond its picture, for rounding


class Box(NamedTuple):
    """One finding on one image, in pixels of the image's file."""

    image: str
    finding: int
    rectangle: Rectangle


def read_boxes(path: Path) -> list[Box]:
    """Read a CSV with the columns image, finding, x, y, width and height, or NIH's BBox_List_2017.csv.

    Raises:
        UsageError: it cannot be read, or a row has an unknown finding or no box.
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
    if finding not in FINDINGS:
        raise UsageError(f"{path}: {finding!r} of {image!r} is none of the 14 findings")
    try:
        x, y, width, height = map(float, texts)
    except ValueError:
        width = height = x = y = math.nan
    if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
        raise UsageError(f"{path}: the box of {finding} on {image!r} is {', '.join(texts)}; it must have a size")
    return Box(image, FINDINGS.index(finding), Rectangle(y, x, height, width))


def check_within(box: Box, size: tuple[int, int], path: Path) -> None:
    """Raise UsageError if a box reaches beyond its picture: then it is in pixels of a file of another size."""
    y, x, height, width = box.rectangle
    if min(x, y) < -MAX_OVERHANG or x + width > size[1] + MAX_OVERHANG or y + height > size[0] + MAX_OVERHANG:
        raise UsageError(
            f"{path}: the box of {FINDINGS[box.finding]} on {box.image!r} reaches beyond its {size[1]} x {size[0]} "
            "pixels; give boxes in pixels of the files that were scored"
        )


def localize_boxes(
    scores: Path, labels: Path, boxes: Path, folder: Path, resamples: int, seed: int
) -> tuple[Localization, int]:
    """Hold the boxes of a table against the class maps in `folder`; patients are those of `labels`, if it names them.

    Returns:
        How well they agree, and how many boxes were left out because their images were not scored.

    Raises:
        UsageError: a table or the maps of an image cannot be used, or no box is on an image that was scored.
    """
    drawn, paths = read_boxes(boxes), read_paths(scores)
    images = list(dict.fromkeys(box.image for box in drawn))
    partners = match(images, paths, boxes, scores)
    path_of = {image: paths[place] for image, place in zip(images, partners, strict=True) if place is not None}
    if not path_of:
        raise UsageError(f"{boxes}: no image of it is in {scores}; the names must agree but for folder and suffix")
    hit, findings = [], []
    for image, path in path_of.items():
        maps = read_raw_maps(folder, path)
        for box in (box for box in drawn if box.image == image):
            check_within(box, maps.size, boxes)
            region = strongest_region(maps.class_maps[box.finding], maps.rectangle)
            hit.append((path, hits(region, box.rectangle)))
            findings.append(box.finding)
    patients = _patients(labels, [path for path, _ in hit], scores)
    rows = np.array([row for _, row in hit])
    found = localize(rows, np.array(findings), patients, resamples=resamples, seed=seed)
    return found, len(drawn) - len(hit)


def _patients(labels: Path, paths: list[str], scores: Path) -> list[str]:
    """An identifier for each path: its patient, or itself where that is unknown."""
    truth = read_labels(labels)
    unique = list(dict.fromkeys(paths))
    rows = dict(zip(unique, match(unique, truth.images, scores, labels), strict=True))
    known = truth.patients
    return [path if known is None or (row := rows[path]) is None else f"patient {known[row]}" for path in paths]
