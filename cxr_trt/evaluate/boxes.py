"""Comparing boxes that radiologists drew with the class maps of `cxr-trt score --heatmaps FOLDER --raw-maps`."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.localization import Localization, hits, localize
from cxr_trt.findings import listed, same_findings
from cxr_trt.geometry import Rectangle, strongest_region
from cxr_trt.results.raw_maps import read_raw_maps
from cxr_trt.tables.labels import read_labels
from cxr_trt.tables.matching import match
from cxr_trt.tables.reading import read_findings, read_paths

BOX_COLUMNS = ("image", "finding", "x", "y", "width", "height")
NIH_FIRST_COLUMN = "Image Index"  # in BBox_List_2017.csv, whose header names fewer columns than its rows have
NIH_FINDING_NAMES = {"Infiltrate": "Infiltration"}
MAX_OVERHANG = 1.0  # pixels by which a box may reach beyond its X-ray, because of rounding


class Box(NamedTuple):
    """A box of one finding on one image, in pixels of the image's file."""

    image: str
    finding: str
    rectangle: Rectangle


class BoxEvaluation(NamedTuple):
    """How well boxes and class maps agree, and which boxes were left out.

    without_scores: number of boxes on images that were not scored.
    other_findings: findings of boxes that SCORES lacks.
    """

    localization: Localization
    without_scores: int
    other_findings: tuple[str, ...]


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


def localize_boxes(scores: Path, labels: Path, boxes: Path, folder: Path, resamples: int, seed: int) -> BoxEvaluation:
    """Compare the boxes of a table with class maps, for the findings that the table of scores has too.

    Args:
        scores: the table of scores.
        labels: the table of labels, for the patients.
        boxes: the table of boxes.
        folder: the folder of heat maps with the class maps.
        resamples: number of resamples of the patients.
        seed: random seed for the resamples.

    Raises:
        UsageError: a table or the maps of an image cannot be used, or no box is of a finding and on an image that was
            scored.
    """
    every, paths, findings = read_boxes(boxes), read_paths(scores), read_findings(scores)
    names = list(dict.fromkeys(box.finding for box in every))
    finding_of = same_findings(names, findings)
    if not finding_of:
        raise UsageError(
            f"{boxes}: its findings ({listed(names)}) are none of {scores}; name them as there: {listed(findings)}"
        )
    drawn = [box._replace(finding=finding_of[box.finding]) for box in every if box.finding in finding_of]
    images = list(dict.fromkeys(box.image for box in drawn))
    partners = match(images, paths, boxes, scores)
    path_of = {image: paths[place] for image, place in zip(images, partners, strict=True) if place is not None}
    if not path_of:
        raise UsageError(
            f"{boxes}: none of its images is in {scores}; the names must be equal except for folder and suffix"
        )
    hit, numbers = [], []
    for image, path in path_of.items():
        maps = read_raw_maps(folder, path)
        if maps.findings != findings:
            raise UsageError(
                f"{folder / path}: its class maps are not of the findings of {scores}; score the X-ray again"
            )
        for box in (box for box in drawn if box.image == image):
            check_within(box, maps.size, boxes)
            region = strongest_region(maps.class_maps[findings.index(box.finding)], maps.rectangle)
            hit.append((path, hits(region, box.rectangle)))
            numbers.append(findings.index(box.finding))
    patients = _patients(labels, [path for path, _ in hit], scores)
    rows = np.array([row for _, row in hit])
    found = localize(findings, rows, np.array(numbers), patients, resamples=resamples, seed=seed)
    others = tuple(name for name in names if name not in finding_of)
    return BoxEvaluation(found, len(drawn) - len(hit), others)


def _patients(labels: Path, paths: list[str], scores: Path) -> list[str]:
    """The patient of each path, or the path itself if the patient is unknown."""
    truth = read_labels(labels, ())
    unique = list(dict.fromkeys(paths))
    rows = dict(zip(unique, match(unique, truth.images, scores, labels), strict=True))
    known = truth.patients
    return [path if known is None or (row := rows[path]) is None else f"patient {known[row]}" for path in paths]
