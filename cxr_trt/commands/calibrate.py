"""The command `cxr-trt calibrate`: fits probabilities and thresholds and writes them into an engine's bundle."""

import os
from pathlib import Path
from typing import get_args

import click
import numpy as np

from cxr_trt.calibrate.calibration import CALIBRATION_FILE, Calibration, Method, fit_calibration
from cxr_trt.calibrate.fit import ThresholdGoal
from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, finish, overwrite_option
from cxr_trt.commands.terminal import show_markdown
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import UsageError
from cxr_trt.findings import listed
from cxr_trt.markdown import markdown_table
from cxr_trt.outputs import check_output, replacing
from cxr_trt.tables.labels import LabelledScores, read_labelled_scores
from cxr_trt.words import quantity


@click.command()
@click.argument("scores", type=PATH)
@click.argument("labels", type=PATH)
@click.option("-e", "--engine", "bundle", type=PATH, required=True, help="The engine bundle that made SCORES.")
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    default="platt",
    show_default=True,
    help="How scores become probabilities.",
)
@click.option("--sensitivity", type=click.FloatRange(0, 1), help="Choose thresholds with at least this sensitivity.")
@click.option(
    "--specificity",
    type=click.FloatRange(0, 1),
    help="Choose thresholds with at least this specificity. Default: the largest sum of the two rates (Youden).",
)
@overwrite_option
@message_options
def calibrate(
    scores: Path,
    labels: Path,
    bundle: Path,
    method: Method,
    sensitivity: float | None,
    specificity: float | None,
    overwrite: bool,
) -> None:
    """Fit probabilities and thresholds to validation data and store them in the bundle; `score` then adds both.

    SCORES is a table that the bundle made, LABELS a CSV as for `evaluate`. Do not use test data.
    """
    goal = _goal(sensitivity, specificity)
    target = bundle / CALIBRATION_FILE
    manifest = read_manifest(bundle)
    engine, findings = manifest.fingerprint, manifest.graph.spec.findings
    check_output(target, (".json",), overwrite=overwrite)
    matched = read_labelled_scores(scores, labels)
    _check_engine(scores, matched, bundle, engine)
    if missing := [name for name in findings if name not in matched.findings + matched.findings_without_labels]:
        raise UsageError(f"{scores}: has no column {listed(missing)}; score the images again with {bundle}")
    matched.check_probabilities(scores)
    scores_of = dict(zip(matched.findings, matched.scores.T, strict=True))
    labels_of = dict(zip(matched.findings, matched.labels.T, strict=True))
    calibration = fit_calibration(findings, scores_of, labels_of, method, goal, engine)
    if not calibration.fits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in calibration.left_out.items())
        raise UsageError(f"no finding can be fitted ({reasons}); give more images")
    with replacing(target, bundle.resolve().with_name(f".{bundle.resolve().name}.{os.getpid()}")) as partial:
        partial.write_text(calibration.to_json(), encoding="utf-8")
    show_markdown(_to_markdown(calibration))
    say(f"{target}: calibration {calibration.summary()}")
    for name, reason in calibration.left_out.items():
        say(f"not fitted: {name}: {reason}")
    say(str(matched.matching))
    for count, reason in ((matched.errors, "could not be scored"), (matched.unlabelled, "not in LABELS")):
        if count:
            say(f"{quantity(count, 'row')} of SCORES left out: {reason}")
    finish(1 if matched.errors else 0)


def _goal(sensitivity: float | None, specificity: float | None) -> ThresholdGoal:
    if sensitivity is not None and specificity is not None:
        raise UsageError("--sensitivity and --specificity exclude each other; give one")
    if sensitivity is not None:
        return ThresholdGoal("sensitivity", sensitivity)
    if specificity is not None:
        return ThresholdGoal("specificity", specificity)
    return ThresholdGoal("youden")


def _check_engine(scores: Path, matched: LabelledScores, bundle: Path, engine: str) -> None:
    if matched.engines is None:
        raise UsageError(
            f"{scores}: has no column engine, so the scores may be another engine's; score again with {bundle}"
        )
    if others := sorted(map(str, matched.engines - {engine})):
        raise UsageError(
            f"{scores}: was made by engine {others[0]}, but {bundle} is {engine}; score the images with {bundle} first"
        )


def _to_markdown(calibration: Calibration) -> str:
    rows = []
    for name, fit in calibration.fits.items():
        score, sensitivity, specificity = fit.threshold
        calibrated = float(fit.scaling(np.array(score)))
        numbers = f"{score:.4f}", f"{calibrated:.4f}", f"{sensitivity:.3f}", f"{specificity:.3f}"
        rows.append((name, str(fit.positives), *numbers))
    columns = ("finding", "positives", "threshold", "calibrated threshold", "sensitivity", "specificity")
    return markdown_table(columns, rows)
