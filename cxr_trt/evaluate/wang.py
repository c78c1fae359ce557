"""Localization as Wang et al. 2017 report it (CVPR, "Bounding Box Generation" and "Evaluation").

The map of a finding is brought to the range from 0 to 255 and thresholded by 60 and by 180; each isolated region of
either gives a box. A radiologist's box is found if one of them has an IoU, or an IoBB, above T; the accuracy is the
share of boxes that are found. A box of the map that has it with none of the radiologists' is a false positive.

What the paper leaves open, and what was chosen here:

- Only X-rays with boxes of a finding count, so false positives are per X-ray that has the finding.
- Regions are outlined on the map refined to an eighth of a cell, and hang together along edges and corners.
- Two regions with the same box are one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.evaluate import localization
from cxr_trt.evaluate.localization import OVERLAPS, Booleans, Localization, localize, overlaps
from cxr_trt.geometry import Rectangle, all_regions

THRESHOLDS = (60 / 255, 180 / 255)


class WangLocalization(NamedTuple):
    """The share of boxes that are found, and the mean number of false positives per X-ray, by each of OVERLAPS."""

    accuracy: Localization
    false_positives: Localization


class FindingOnXray(NamedTuple):
    """How boxes of a map compare with those that radiologists drew of the same finding on the same X-ray.

    found: [boxes, overlaps], whether each of the radiologists' is found.
    false_positives: [overlaps], how many of the map's are false.
    """

    finding: int
    patient: str
    found: Booleans
    false_positives: npt.NDArray[np.int64]


def compare_map(
    class_map: npt.NDArray[np.float32], rectangle: Rectangle, boxes: Sequence[Rectangle], finding: int, patient: str
) -> FindingOnXray:
    """Compare a map with the boxes of its finding, of which there is at least one.

    Args:
        class_map: float32 [h, w].
        rectangle: the part of the X-ray that the map covers, in pixels.
        boxes: the radiologists', in pixels.
        finding: its index.
        patient: any identifier.
    """
    regions = all_regions(class_map, rectangle, THRESHOLDS)
    agree = np.array([[overlaps(region, box) for region in regions] for box in boxes])
    return FindingOnXray(finding, patient, np.asarray(agree.any(1)), (~agree.any(0)).sum(0))


def localize_as_wang(
    names: Sequence[str], xrays: Sequence[FindingOnXray], *, resamples: int = 1000, seed: int = 0
) -> WangLocalization:
    """Accuracy and false positives of each finding, and their means over the findings.

    Args:
        names: names of the findings.
        xrays: one for each X-ray and finding with boxes.
        resamples: number of resamples of the patients; 0 for no intervals.
        seed: random seed for the resamples.
    """
    counts = [len(xray.found) for xray in xrays]
    findings, patients = np.array([xray.finding for xray in xrays]), np.array([xray.patient for xray in xrays])
    found = np.concatenate([xray.found for xray in xrays])
    false = np.array([xray.false_positives for xray in xrays], np.float64)
    chosen: dict[str, Any] = {"measures": OVERLAPS, "resamples": resamples, "seed": seed}
    return WangLocalization(
        localize(names, found, np.repeat(findings, counts), np.repeat(patients, counts), **chosen),
        localize(names, false, findings, patients, **chosen),
    )


def to_json(result: WangLocalization) -> dict[str, Any]:
    """Plain values for a JSON file. What is counted as boxes among the false positives are X-rays with the finding."""
    return {name: localization.to_json(own) for name, own in result._asdict().items()}


def to_markdown(result: WangLocalization) -> str:
    """Accuracy, then false positives per X-ray, each by IoU and by IoBB."""
    ious, iobbs = ([name for name in OVERLAPS if name.startswith(kind)] for kind in ("IoU", "IoBB"))
    titles = ("As Wang et al. 2017: accuracy", "As Wang et al. 2017: false positives per X-ray")
    parts = [
        f"{title}:\n\n{localization.table(own, ious)}\n\n{localization.table(own, iobbs)}"
        for title, own in zip(titles, result, strict=True)
    ]
    return "\n\n".join(parts)
