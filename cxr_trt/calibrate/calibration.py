"""A calibration: a scaling and a threshold per finding, for one engine, in a file of the engine's bundle.

`calibration.json` is not part of the engine. The manifest and the engine's fingerprint do not change with it, so
earlier scores stay valid, and a table gets its new columns from the scores in its journal. The file names the
fingerprint of the one engine that it is for, and ends with its own hash.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from cxr_trt.calibrate.fit import (
    Booleans,
    Floats,
    Isotonic,
    Platt,
    Scaling,
    Threshold,
    ThresholdGoal,
    choose_threshold,
    fit_isotonic,
    fit_platt,
    why_not_fit,
)
from cxr_trt.errors import BundleError
from cxr_trt.findings import CALIBRATED_SUFFIX, POSITIVE_SUFFIX
from cxr_trt.hashing import hash_fields, to_hashed_json
from cxr_trt.words import quantity

CALIBRATION_FILE = "calibration.json"
MAX_CALIBRATION_BYTES = 16 << 20
CALIBRATION_FORMAT = 1  # raise it when the fields change their meaning
Method = Literal["platt", "isotonic"]


def calibrated_column(finding: str) -> str:
    """The column of a table with the probability of a finding."""
    return finding + CALIBRATED_SUFFIX


def positive_column(finding: str) -> str:
    """The column of a table that says yes or no for a finding."""
    return finding + POSITIVE_SUFFIX


@dataclass(frozen=True)
class FindingCalibration:
    """The fit of one finding; `positives` counts the images with the finding that it was fitted on."""

    positives: int
    scaling: Scaling
    threshold: Threshold


@dataclass(frozen=True)
class Calibration:
    """The calibration of one engine.

    engine: fingerprint of the engine.
    method: the kind of scaling of all findings.
    goal: what all thresholds were chosen for, in words.
    images: number of images that it was fitted on.
    findings: all findings of the engine, in order.
    fits: the findings that could be fitted.
    left_out: the reason for each finding that could not.
    """

    engine: str
    method: Method
    goal: str
    images: int
    findings: tuple[str, ...]
    fits: Mapping[str, FindingCalibration]
    left_out: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits; written into every row that the calibration was applied to."""
        return hash_fields(self._fields())[:16]

    def summary(self) -> str:
        fitted = f"{len(self.fits)} of {len(self.findings)} findings on {quantity(self.images, 'image')}"
        return f"{self.fingerprint}, {fitted}, {self.method}; thresholds for {self.goal}"

    @property
    def columns(self) -> tuple[str, ...]:
        """What it adds to a table: its fingerprint, probabilities, and yes or no; empty for findings not fitted."""
        calibrated, positive = (map(column, self.findings) for column in (calibrated_column, positive_column))
        return ("calibration", *calibrated, *positive)

    def values(self, probabilities: tuple[float, ...] | None) -> tuple[str | float | None, ...]:
        """The cells for the float32 scores of a row, or for an error row, in the order of `columns`."""
        calibrated: list[float | None] = [None] * len(self.findings)
        positive: list[str | None] = [None] * len(self.findings)
        for i, (finding, score) in enumerate(zip(self.findings, probabilities or (), strict=False)):
            if fit := self.fits.get(finding):
                calibrated[i] = float(fit.scaling(np.array(score)))
                positive[i] = "yes" if score >= fit.threshold.score else "no"
        return (self.fingerprint, *calibrated, *positive)

    def to_json(self) -> str:
        """Human-readable JSON that ends with its own hash."""
        return to_hashed_json(self._fields())

    def _fields(self) -> dict[str, Any]:
        fits = {
            name: {
                "positives": fit.positives,
                "scaling": dataclasses.asdict(fit.scaling),
                "threshold": fit.threshold._asdict(),
            }
            for name, fit in self.fits.items()
        }
        plain = {"engine": self.engine, "method": self.method, "aim": self.goal, "images": self.images}
        return {"format": CALIBRATION_FORMAT, **plain, "fits": fits, "left_out": dict(self.left_out)}


def fit_calibration(
    findings: Sequence[str],
    scores: Mapping[str, Floats],
    labels: Mapping[str, Booleans],
    method: Method,
    goal: ThresholdGoal,
    engine: str,
) -> Calibration:
    """Fit every finding that can be fitted.

    Args:
        findings: all findings of the engine, in order.
        scores: probabilities from the engine, [N] for each finding with labels.
        labels: [N] for each of these.
        method: the kind of scaling.
        goal: what the thresholds are chosen for.
        engine: fingerprint of the engine.
    """
    fit_scaling: Callable[[Floats, Booleans], Scaling] = fit_platt if method == "platt" else fit_isotonic
    fits, left_out = {}, {}
    for finding in findings:
        if finding not in labels:
            left_out[finding] = "it has no labels"
            continue
        truth, column = labels[finding], scores[finding].astype(np.float32)
        exact = column.astype(np.float64)
        if reason := why_not_fit(exact, truth):
            left_out[finding] = reason
        else:
            threshold = choose_threshold(column, truth, goal)
            fits[finding] = FindingCalibration(int(truth.sum()), fit_scaling(exact, truth), threshold)
    images = len(next(iter(labels.values())))
    return Calibration(engine, method, str(goal), images, tuple(findings), fits, left_out)


def read_calibration(bundle: Path, engine: str, findings: tuple[str, ...]) -> Calibration | None:
    """Read the calibration of a bundle, if it has one.

    Args:
        bundle: folder of the bundle.
        engine: fingerprint of its engine.
        findings: findings of its engine.

    Raises:
        BundleError: the calibration is damaged, changed, or was fitted for another engine.
    """
    path = bundle / CALIBRATION_FILE
    if path.is_symlink():
        raise BundleError(f"{path}: is a link, which a bundle may not hold; copy the file itself")
    if not path.exists():
        return None
    remedy = "remove it, or fit it again with `cxr-trt calibrate ... --overwrite`"
    try:
        if path.stat().st_size > MAX_CALIBRATION_BYTES:
            raise ValueError("larger than any calibration")
        text = path.read_text(encoding="utf-8")
        calibration = parse_calibration(text, findings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: damaged or from another version of cxr-trt; {remedy}") from error
    if text != calibration.to_json():
        raise BundleError(f"{path}: changed since it was fitted; {remedy}")
    if calibration.engine != engine:
        raise BundleError(f"{path}: fitted for the engine {calibration.engine}, but this is {engine}; {remedy}")
    return calibration


def parse_calibration(text: str, findings: tuple[str, ...]) -> Calibration:
    """The inverse of `Calibration.to_json`. Raises ValueError, LookupError, TypeError or AttributeError for others."""
    return _parse(json.loads(text), findings)


def _parse(fields: Any, findings: tuple[str, ...]) -> Calibration:
    if fields["format"] != CALIBRATION_FORMAT:
        raise ValueError("another format")
    method = cast(Method, fields["method"])
    fits = {name: _parse_fit(fit, method) for name, fit in fields["fits"].items()}
    left_out = fields["left_out"]
    texts = (fields["engine"], fields["aim"], *left_out, *left_out.values())
    if {*fits, *left_out} != set(findings) or not all(isinstance(text, str) for text in texts):
        raise TypeError("other findings, or a text is missing")
    return Calibration(fields["engine"], method, fields["aim"], int(fields["images"]), findings, fits, left_out)


def _parse_fit(fit: Any, method: Method) -> FindingCalibration:
    scaling: Scaling
    if method == "platt":
        scaling = Platt(**fit["scaling"])
        numbers = [scaling.slope, scaling.intercept]
    else:
        scaling = Isotonic(*(tuple(fit["scaling"][name]) for name in ("scores", "probabilities")))
        numbers = [*scaling.scores, *scaling.probabilities]
        if len(scaling.scores) != len(scaling.probabilities) or not scaling.scores:
            raise ValueError("scores and probabilities differ in number")
        if any(np.diff(scaling.scores) < 0) or any(np.diff(scaling.probabilities) < 0):
            raise ValueError("the scaling is not rising")
    threshold = Threshold(**fit["threshold"])
    if not all(type(number) is float and math.isfinite(number) for number in (*numbers, *threshold)):
        raise TypeError("not a number")
    return FindingCalibration(int(fit["positives"]), scaling, threshold)
