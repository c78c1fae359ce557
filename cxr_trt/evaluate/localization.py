"""How well regions of class maps agree with boxes that radiologists drew.

A box of a finding is compared with the region that `cxr_trt.geometry.strongest_region` finds in the finding's map:

- IoU is their intersection divided by their union, IoBB their intersection divided by the area of the region's box
  (Wang et al. 2017, CVPR, sec. 4). Accuracy at T is the share of boxes whose ratio exceeds T. IoBB favours small
  regions.
- The pointing game gives the share of boxes that contain the highest point of the map (Zhang et al. 2018, IJCV), here
  without tolerance.

Intervals come from resampled patients; the mean is over the findings that have boxes, with equal weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.evaluate.auc import Floats, interval, resampled
from cxr_trt.geometry import Rectangle, Region
from cxr_trt.markdown import markdown_table

IOU_THRESHOLDS = tuple(t / 10 for t in range(1, 8))
IOBB_THRESHOLDS = tuple(t / 10 for t in range(1, 10))
OVERLAPS = (*(f"IoU {t}" for t in IOU_THRESHOLDS), *(f"IoBB {t}" for t in IOBB_THRESHOLDS))
MEASURES = (*OVERLAPS, "pointing")

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """A share of boxes with its 95 % interval, which is None without resamples."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Localization:
    """How well regions agree with boxes.

    findings: for each finding with boxes, their number and the accuracy by each of MEASURES.
    mean: the mean accuracy of those findings, by each of MEASURES.
    """

    findings: dict[str, tuple[int, dict[str, Accuracy]]]
    mean: dict[str, Accuracy]
    boxes: int
    patients: int
    resamples: int


def hits(region: Region, box: Rectangle) -> list[bool]:
    """Whether a region agrees with a box, by each of MEASURES."""
    y, x = region.peak
    inside = box.y <= y < box.y + box.height and box.x <= x < box.x + box.width
    return [*overlaps(region.box, box), inside]


def overlaps(found: Rectangle, box: Rectangle) -> list[bool]:
    """Whether the box around a region agrees with a radiologist's, by each of OVERLAPS."""
    down = min(found.y + found.height, box.y + box.height) - max(found.y, box.y)
    across = min(found.x + found.width, box.x + box.width) - max(found.x, box.x)
    both = max(down, 0.0) * max(across, 0.0)
    area = found.height * found.width
    iou, iobb = both / (area + box.height * box.width - both), both / area
    return [*(iou > t for t in IOU_THRESHOLDS), *(iobb > t for t in IOBB_THRESHOLDS)]


def localize(
    names: Sequence[str],
    hit: Booleans | Floats,
    findings: npt.NDArray[np.int64],
    patients: npt.ArrayLike,
    *,
    measures: Sequence[str] = MEASURES,
    resamples: int = 1000,
    seed: int = 0,
) -> Localization:
    """Compute the accuracies of each finding and their mean.

    Args:
        names: names of the findings.
        hit: [N, measures], the results of `hits` for N boxes, or any other values of which a finding's mean counts.
        findings: [N], index of each box's finding.
        patients: [N], any identifiers; the boxes of a patient are drawn together.
        measures: names of the columns of `hit`.
        resamples: number of sets of patients, drawn with replacement and as large as the original; 0 for no intervals.
        seed: random seed for the resamples.
    """
    kept = np.unique(findings)
    belongs = (findings == kept[:, None]).astype(np.float64)  # [findings, N]
    exact = _shares(belongs, hit, np.ones((len(hit), 1)))[0]
    chunks = [_shares(belongs, hit, weights) for weights in resampled(patients, resamples, seed)]
    drawn = np.concatenate(chunks) if chunks else np.empty((0, *exact.shape))
    results = {
        names[finding]: (int(belongs[row].sum()), _accuracies(exact[row], drawn[:, row], measures))
        for row, finding in enumerate(kept)
    }
    mean = _accuracies(exact.mean(0), drawn.mean(1), measures)
    return Localization(results, mean, len(hit), len(np.unique(np.asarray(patients))), resamples)


def _shares(belongs: Floats, hit: Booleans | Floats, weights: npt.NDArray[Any]) -> Floats:
    """Accuracies [resamples, findings, measures]; NaN if a resample has no box of a finding."""
    counts = np.einsum("fn,nb->bf", belongs, weights)[:, :, None]
    sums = np.einsum("fn,nb,nm->bfm", belongs, weights, hit.astype(np.float64), optimize=True)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _accuracies(exact: Floats, drawn: Floats, measures: Sequence[str]) -> dict[str, Accuracy]:
    return {name: Accuracy(float(exact[column]), *interval(drawn[:, column])) for column, name in enumerate(measures)}


def to_json(result: Localization) -> dict[str, Any]:
    """Plain values for a JSON file."""

    def plain(accuracies: dict[str, Accuracy]) -> dict[str, Any]:
        return {name: vars(accuracy) for name, accuracy in accuracies.items()}

    findings = {name: {"boxes": boxes, **plain(values)} for name, (boxes, values) in result.findings.items()}
    counts = {"boxes": result.boxes, "patients": result.patients, "resamples": result.resamples}
    return {**counts, "mean": plain(result.mean), "findings": findings}


def to_markdown(result: Localization) -> str:
    """Two tables with a row per finding and the mean: pointing game and IoU, then IoBB."""
    ious = [f"IoU {t}" for t in IOU_THRESHOLDS]
    iobbs = [f"IoBB {t}" for t in IOBB_THRESHOLDS]
    return "\n\n".join(table(result, measures) for measures in (["pointing", *ious], iobbs))


def table(result: Localization, measures: Sequence[str]) -> str:
    """A row per finding and the mean, a column per measure."""
    results = {**result.findings, "**mean**": (result.boxes, result.mean)}
    rows = [
        (name, str(boxes), *(shown(accuracies[measure]) for measure in measures))
        for name, (boxes, accuracies) in results.items()
    ]
    return markdown_table(("finding", "boxes", *measures), rows)


def shown(accuracy: Accuracy) -> str:
    """`0.43 (0.38 to 0.49)`."""
    between = "" if accuracy.low is None else f" ({accuracy.low:.2f} to {accuracy.high:.2f})"
    return f"{accuracy.value:.2f}{between}"
