"""Comparing boxes that radiologists drew with the class maps of `cxr-trt score --heatmaps FOLDER --raw-maps`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.localization import Localization, hits, localize
from cxr_trt.evaluate.wang import WangLocalization, compare_map, localize_as_wang
from cxr_trt.findings import listed, same_findings
from cxr_trt.geometry import Rectangle, strongest_region
from cxr_trt.results.raw_maps import read_raw_maps
from cxr_trt.tables.boxes import check_within, read_boxes
from cxr_trt.tables.labels import read_labels
from cxr_trt.tables.matching import match
from cxr_trt.tables.reading import read_findings, read_paths


class BoxEvaluation(NamedTuple):
    """How well boxes and class maps agree, by this project's rule and as Wang et al. report it, and what was left out.

    without_scores: number of boxes on images that were not scored.
    other_findings: findings of boxes that SCORES lacks.
    """

    localization: Localization
    wang: WangLocalization
    without_scores: int
    other_findings: tuple[str, ...]


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
    patient_of = _patients(labels, list(dict.fromkeys(path_of.values())), scores)
    hit, numbers, patients, xrays = [], [], [], []
    for image, path in path_of.items():
        maps = read_raw_maps(folder, path)
        if maps.findings != findings:
            raise UsageError(
                f"{folder / path}: its class maps are not of the findings of {scores}; score the X-ray again"
            )
        by_finding: dict[str, list[Rectangle]] = {}
        for box in (box for box in drawn if box.image == image):
            check_within(box, maps.size, boxes)
            by_finding.setdefault(box.finding, []).append(box.rectangle)
        for finding, rectangles in by_finding.items():
            number = findings.index(finding)
            class_map = maps.class_maps[number]
            region = strongest_region(class_map, maps.rectangle)
            hit += [hits(region, rectangle) for rectangle in rectangles]
            numbers += [number] * len(rectangles)
            patients += [patient_of[path]] * len(rectangles)
            xrays.append(compare_map(class_map, maps.rectangle, rectangles, number, patient_of[path]))
    found = localize(findings, np.array(hit), np.array(numbers), patients, resamples=resamples, seed=seed)
    wang = localize_as_wang(findings, xrays, resamples=resamples, seed=seed)
    others = tuple(name for name in names if name not in finding_of)
    return BoxEvaluation(found, wang, len(drawn) - len(hit), others)


def _patients(labels: Path, paths: list[str], scores: Path) -> dict[str, str]:
    """The patient of each path, or the path itself if the patient is unknown."""
    truth = read_labels(labels, ())
    rows, known = match(paths, truth.images, scores, labels), truth.patients
    return {
        path: path if known is None or row is None else f"patient {known[row]}"
        for path, row in zip(paths, rows, strict=True)
    }
