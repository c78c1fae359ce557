"""The command `cxr-trt calibrate`: fits the findings of an engine and writes the calibration into its bundle."""

import os
from pathlib import Path

import click
import numpy as np

from cxr_trt.calibrate.calibration import NAME, Calibration, Method, calibrate
from cxr_trt.calibrate.fit import Aim
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import UsageError
from cxr_trt.evaluate.tables import Matched, read_matched
from cxr_trt.outputs import check_output, replacing


def run(
    scores: Path,
    labels: Path,
    bundle: Path,
    method: Method,
    sensitivity: float | None,
    specificity: float | None,
    overwrite: bool,
) -> int:
    """Calibrate and return the exit code: 0 if every row of SCORES counted, 1 if some were errors or had no labels.

    Raises:
        CxrTrtError: the bundle or a table cannot be used, the scores are another engine's, or nothing can be fitted.
    """
    aim = _aim(sensitivity, specificity)
    target = bundle / NAME
    engine = read_manifest(bundle).fingerprint
    check_output(target, (".json",), overwrite=overwrite)
    matched = read_matched(scores, labels)
    _check_engine(scores, matched, bundle, engine)
    matched.check_probabilities(scores)
    calibration = calibrate(matched.scores, matched.labels, method, aim, engine)
    if not calibration.fits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in calibration.left_out.items())
        raise UsageError(f"no finding can be fitted ({reasons}); give more images")
    with replacing(target, bundle.resolve().with_name(f".{bundle.resolve().name}.{os.getpid()}")) as partial:
        partial.write_text(calibration.to_json(), encoding="utf-8")
    click.echo(_to_markdown(calibration))
    click.echo(f"{target}: calibration {calibration.summary()}", err=True)
    for name, reason in calibration.left_out.items():
        click.echo(f"not fitted: {name}: {reason}", err=True)
    for count, what in ((matched.errors, "could not be scored"), (matched.unlabelled, "are not in LABELS")):
        if count:
            click.echo(f"{count} rows of SCORES left out: they {what}", err=True)
    return 1 if matched.errors or matched.unlabelled else 0


def _aim(sensitivity: float | None, specificity: float | None) -> Aim:
    if sensitivity is not None and specificity is not None:
        raise UsageError("--sensitivity and --specificity exclude each other; give one")
    if sensitivity is not None:
        return Aim("sensitivity", sensitivity)
    if specificity is not None:
        return Aim("specificity", specificity)
    return Aim("youden")


def _check_engine(scores: Path, matched: Matched, bundle: Path, engine: str) -> None:
    if matched.engines is None:
        raise UsageError(f"{scores}: has no column engine, so it may be another engine's; score again with {bundle}")
    if others := sorted(map(str, matched.engines - {engine})):
        raise UsageError(
            f"{scores}: scores of the engine {others[0]}, but {bundle} is {engine}; score the images with it first"
        )


def _to_markdown(calibration: Calibration) -> str:
    lines = ["| finding | positives | threshold | calibrated there | sensitivity | specificity |", "|---" * 6 + "|"]
    for name, fit in calibration.fits.items():
        score, sensitivity, specificity = fit.threshold
        there = float(fit.scaling(np.array(score)))
        lines.append(
            f"| {name} | {fit.positives} | {score:.4f} | {there:.4f} | {sensitivity:.3f} | {specificity:.3f} |"
        )
    return "\n".join(lines)
