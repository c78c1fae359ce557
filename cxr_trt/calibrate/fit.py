"""Fitting one finding: a scaling of its scores to probabilities, and a threshold.

Platt scaling is a logistic regression with one variable, the logit of the score, and smoothed targets (Platt 1999, in
"Advances in Large Margin Classifiers"). Isotonic scaling is the rising function that fits best, found by pooling
adjacent violators (Zadrozny and Elkan 2002, KDD); it needs about a thousand images before it beats Platt's two
parameters (Niculescu-Mizil and Caruana 2005, ICML).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.words import quantity

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

MIN_CASES = 10
"""Positives, and negatives, that a fit needs: ten events per variable (Peduzzi et al. 1996, J Clin Epidemiol)."""
MIN_PROBABILITY = 1e-7  # scores are kept this far from 0 and 1 for their logit; float32 is no finer near 1
MAX_NEWTON_STEPS = 100  # a fit takes about six


@dataclass(frozen=True)
class Platt:
    """Probability = sigmoid(slope * logit(score) + intercept)."""

    slope: float
    intercept: float

    def __call__(self, scores: Floats) -> Floats:
        return _sigmoid(self.slope * logit(scores) + self.intercept)


@dataclass(frozen=True)
class Isotonic:
    """Straight lines between points (score, probability), both rising; constant before the first and after the last."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.probabilities)


Scaling = Platt | Isotonic


@dataclass(frozen=True)
class ThresholdGoal:
    """What a threshold is chosen for: at least this sensitivity or specificity, or the largest sum of both (Youden)."""

    name: Literal["sensitivity", "specificity", "youden"]
    value: float = 0.0

    def __str__(self) -> str:
        return (
            "the largest sum of sensitivity and specificity (Youden)"
            if self.name == "youden"
            else f"{self.name} {self.value:g}"
        )


class Threshold(NamedTuple):
    """The score from which a finding is called present, and the rates on the images that it was chosen on."""

    score: float
    sensitivity: float
    specificity: float


def logit(scores: Floats) -> Floats:
    """The logit of probabilities [N], kept away from 0 and 1 by MIN_PROBABILITY."""
    inside = np.clip(scores, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.log(inside) - np.log1p(-inside)


def fit_platt(scores: Floats, labels: Booleans) -> Platt:
    """Minimise the cross-entropy to Platt's targets, (P + 1) / (P + 2) and 1 / (N + 2), by Newton's method.

    Args:
        scores: [N], 0 to 1, not all equal.
        labels: [N], with positives and negatives.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = logit(scores)
    mean, spread = logits.mean(), logits.std()
    variables = np.stack([(logits - mean) / spread, np.ones_like(logits)], axis=1)
    weights = np.array([0.0, np.log((positives + 1) / (negatives + 1))])

    def loss(weights: Floats) -> float:
        linear = variables @ weights
        return float(np.sum(np.logaddexp(0, linear) - targets * linear))

    for _ in range(MAX_NEWTON_STEPS):
        fitted = _sigmoid(variables @ weights)
        gradient = variables.T @ (fitted - targets)
        if np.abs(gradient).max() <= 1e-10 * len(scores):
            break
        step = np.linalg.solve(variables.T * (fitted * (1 - fitted)) @ variables, gradient)
        size = 1.0
        while size > MIN_PROBABILITY and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
    slope = float(weights[0] / spread)
    return Platt(slope, float(weights[1] - slope * mean))


def fit_isotonic(scores: Floats, labels: Booleans) -> Isotonic:
    """Find the rising function with the least squared error by pooling adjacent violators; equal scores are one point.

    Args:
        scores: [N].
        labels: [N].
    """
    values, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    hits = np.bincount(places, labels)
    blocks: list[tuple[float, int, int, int]] = []  # positives, images, first and last of `values`
    for i, (positives, images) in enumerate(zip(hits.tolist(), counts.tolist(), strict=True)):
        block = (positives, images, i, i)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2], i)
        blocks.append(block)
    points = [
        (float(values[end]), positives / images)
        for positives, images, first, last in blocks
        for end in dict.fromkeys((first, last))
    ]
    at, probabilities = zip(*points, strict=True)
    return Isotonic(at, probabilities)


def choose_threshold(scores: npt.NDArray[np.float32], labels: Booleans, goal: ThresholdGoal) -> Threshold:
    """Choose the highest threshold with a sensitivity, the lowest with a specificity, or Youden's (1950).

    If several have the same sum of sensitivity and specificity, Youden's is the lowest of them.

    Args:
        scores: float32 [N]; the threshold is one of them, or just above all of them.
        labels: [N], with positives and negatives.
        goal: what the threshold is chosen for.
    """
    values = np.unique(scores)
    candidates = np.append(values, np.nextafter(values[-1], np.float32(2)))
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    found = len(positives) - np.searchsorted(positives, candidates, "left")
    rejected = np.searchsorted(negatives, candidates, "left")
    sensitivity, specificity = found / len(positives), rejected / len(negatives)
    if goal.name == "sensitivity":
        chosen = np.flatnonzero(sensitivity >= goal.value)[-1]
    elif goal.name == "specificity":
        chosen = np.flatnonzero(specificity >= goal.value)[0]
    else:
        chosen = np.argmax(found * len(negatives) + rejected * len(positives))
    return Threshold(float(candidates[chosen]), float(sensitivity[chosen]), float(specificity[chosen]))


def why_not_fit(scores: Floats, labels: Booleans) -> str | None:
    """The reason why scores [N] and labels [N] cannot be fitted; None if they can."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    for count, what in ((positives, "positive"), (negatives, "negative")):
        if count < MIN_CASES:
            return f"{quantity(count, what)}, and a fit needs {MIN_CASES}"
    if np.ptp(scores) == 0:
        return "all scores are equal"
    if (slope := fit_platt(scores, labels).slope) <= 0:
        return f"the scores do not rise with the finding on these images (slope {slope:.2f})"
    return None


def _sigmoid(values: Floats) -> Floats:
    result: Floats = np.exp(-np.logaddexp(0, -values))
    return result
