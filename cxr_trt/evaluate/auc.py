"""Areas under the ROC and precision-recall curves, with bootstrap intervals over patients.

Only ranks count, so everything is computed in integers and is exact, ties included. An image that is drawn twice counts
twice: a resample is a column of integer weights, and each finding is sorted once for all resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.markdown import markdown_table

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RESAMPLES_AT_A_TIME = 50  # about 10 MB per array for 25,596 images
INTERVAL_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Area:
    """The areas of one finding; None without positives or without negatives.

    low, high: 95 % percentile interval of `auc` over resampled patients; None without resamples.
    auprc: average precision, the step-wise area under the precision-recall curve.
    positives: number of images with the finding.
    """

    auc: float | None
    low: float | None
    high: float | None
    auprc: float | None
    positives: int


@dataclass(frozen=True)
class Evaluation:
    """The areas of all findings, and the mean AUC over those that have one, with its 95 % interval `low` to `high`.

    mean_resamples: number of resamples behind the mean's interval: those in which each finding of the mean has an AUC.
    """

    findings: dict[str, Area]
    mean_auc: float | None
    low: float | None
    high: float | None
    images: int
    patients: int
    resamples: int
    mean_resamples: int
    seed: int

    @property
    def left_out(self) -> list[str]:
        """The findings that the mean does not include."""
        return [name for name, area in self.findings.items() if area.auc is None]


def evaluate(
    findings: Sequence[str],
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Compute the areas of findings and their mean (paper, sec. 4.2).

    Args:
        findings: names [F].
        scores: [N, F], finite; only their ranks matter.
        labels: [N, F], 0 or 1.
        patients: [N], any identifiers; all images of a patient are drawn together.
        resamples: number of sets of patients, drawn with replacement and as large as the original; 0 for no intervals.
        seed: random seed for the resamples.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    exact = [
        _none_if_nan(roc_auc(s, y, np.ones((len(s), 1), np.int64))[0]) for s, y in zip(scores.T, labels.T, strict=True)
    ]
    drawn = bootstrap(scores, labels, patients, resamples, seed)
    kept = [column for column, auc in enumerate(exact) if auc is not None]
    means = drawn[:, kept].mean(1) if kept else np.empty(0)
    areas = {
        name: Area(auc, *interval(drawn[:, i]), _none_if_nan(average_precision(scores[:, i], labels[:, i])), int(sum_))
        for i, (name, auc, sum_) in enumerate(zip(findings, exact, labels.sum(0), strict=True))
    }
    values = [auc for auc in exact if auc is not None]
    return Evaluation(
        findings=areas,
        mean_auc=float(np.mean(values)) if values else None,
        **dict(zip(("low", "high"), interval(means), strict=True)),
        images=len(scores),
        patients=len(np.unique(np.asarray(patients))),
        resamples=resamples,
        mean_resamples=int(np.isfinite(means).sum()),
        seed=seed,
    )


def roc_auc(scores: Floats, labels: npt.NDArray[np.bool_], weights: Integers) -> Floats:
    """The share of (positive, negative) pairs in the right order, a tie counting half, for many weightings at once.

    Args:
        scores: [N].
        labels: [N].
        weights: [N, B], how often each image occurs in each of B sets.

    Returns:
        [B]; NaN where a set has no positives or no negatives.
    """
    negatives = np.flatnonzero(~labels)
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.zeros((len(negatives) + 1, weights.shape[1]), np.int64)  # row i: the weight of the i lowest negatives
    np.cumsum(weights[negatives], axis=0, out=below[1:])
    first, last = (np.searchsorted(scores[negatives], scores[labels], side) for side in ("left", "right"))
    positive = weights[labels]
    twice = np.einsum("nb,nb->b", positive, below[first] + below[last])
    pairs = positive.sum(0) * below[-1]
    return np.where(pairs > 0, twice / np.maximum(2 * pairs, 1), np.nan)


def bootstrap(
    scores: Floats, labels: npt.NDArray[np.bool_], patients: npt.ArrayLike, resamples: int, seed: int
) -> Floats:
    """AUC of resampled sets of patients. The sets depend on patients and seed alone, so two engines can be paired.

    Args:
        scores: [N, F].
        labels: [N, F].
        patients: [N], any identifiers.
        resamples: number of sets of patients, drawn with replacement and as large as the original.
        seed: random seed for the resamples.

    Returns:
        [resamples, F]; NaN where a finding has only one class in a resample.
    """
    columns = range(scores.shape[1])
    chunks = [
        np.stack([roc_auc(scores[:, column], labels[:, column], weights) for column in columns], axis=1)
        for weights in resampled(patients, resamples, seed)
    ]
    return np.concatenate(chunks) if chunks else np.empty((0, len(columns)))


def resampled(patients: npt.ArrayLike, resamples: int, seed: int) -> Iterator[Integers]:
    """How often each of N images occurs in sets of patients drawn with replacement: [N, B] for B sets at a time."""
    numbers: Integers = np.unique(np.asarray(patients), return_inverse=True)[1].astype(np.int64)
    total = int(numbers.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, RESAMPLES_AT_A_TIME):
        count = min(RESAMPLES_AT_A_TIME, resamples - start)
        draws = [np.bincount(rng.integers(total, size=total), minlength=total) for _ in range(count)]
        yield np.stack(draws, axis=1)[numbers]


def interval(areas: Floats) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of resampled values without NaN; None if there are none."""
    defined = areas[np.isfinite(areas)]
    if not len(defined):
        return None, None
    low, high = np.percentile(defined, INTERVAL_PERCENTILES)
    return float(low), float(high)


def average_precision(scores: Floats, labels: npt.NDArray[np.bool_]) -> float:
    """The sum of precision times the step in recall over all thresholds; NaN without positives or negatives."""
    if labels.all() or not labels.any():
        return float("nan")
    order = np.argsort(-scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last image of each run of ties
    hits = np.cumsum(labels[order])[ends]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain values for a JSON file; undefined areas are None."""
    return {
        "mean_auc": evaluation.mean_auc,
        "mean_low": evaluation.low,
        "mean_high": evaluation.high,
        "mean_leaves_out": evaluation.left_out,
        "mean_resamples": evaluation.mean_resamples,
        "n": evaluation.images,
        "patients": evaluation.patients,
        "resamples": evaluation.resamples,
        "seed": evaluation.seed,
        "findings": {name: vars(area) for name, area in evaluation.findings.items()},
    }


def to_markdown(evaluation: Evaluation) -> str:
    """A table with a row per finding, and the mean."""
    rows = [
        (
            name,
            str(area.positives),
            *_cells(area.auc, area.low, area.high),
            "" if area.auprc is None else f"{area.auprc:.4f}",
        )
        for name, area in evaluation.findings.items()
    ]
    mean = ("**mean**", "", *_cells(evaluation.mean_auc, evaluation.low, evaluation.high), "")
    return markdown_table(("finding", "positives", "AUC", "95 % interval", "AUPRC"), [*rows, mean])


def _cells(auc: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    interval = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
    return "undefined" if auc is None else f"{auc:.4f}", interval


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
