"""The command `cxr-trt evaluate`: Markdown to standard output, JSON to a file, remarks to standard error."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cxr_trt.errors import UsageError
from cxr_trt.evaluate import calibration, localization
from cxr_trt.evaluate.auc import Evaluation, evaluate, to_json, to_markdown
from cxr_trt.evaluate.boxes import localize_boxes
from cxr_trt.evaluate.curves import SUFFIXES, check_plots, save_curves
from cxr_trt.evaluate.tables import Matched, read_matched
from cxr_trt.outputs import check_output, replacing


def run(
    scores: Path,
    labels: Path,
    json_path: Path | None,
    curves: Path | None,
    reliability: Path | None,
    boxes: Path | None,
    maps: Path | None,
    resamples: int,
    seed: int,
    overwrite: bool,
) -> int:
    """Evaluate and return the exit code: 0 if every row of SCORES counted, 1 if some were errors or had no labels.

    Raises:
        UsageError: a table or the output cannot be used.
    """
    if bool(boxes) != bool(maps):
        raise UsageError("--boxes and --maps go together: boxes, and the folder of `cxr-trt score --raw-maps`")
    if json_path:
        check_output(json_path, (".json",), overwrite=overwrite)
    for picture in filter(None, (curves, reliability)):
        check_output(picture, SUFFIXES, overwrite=overwrite)
        check_plots()
    matched = read_matched(scores, labels)
    patients = matched.patients if matched.patients is not None else range(len(matched.scores))
    evaluation = evaluate(matched.scores, matched.labels, patients, resamples=resamples, seed=seed)
    content = to_json(evaluation)
    click.echo(to_markdown(evaluation))
    if reliability or matched.calibrated is not None:
        matched.check_probabilities(scores)
        errors = calibration.evaluate_calibration(matched)
        content["calibration"] = calibration.to_json(errors)
        click.echo("\n" + calibration.to_markdown(errors))
    if boxes and maps:
        found = localize_boxes(scores, labels, boxes, maps, resamples, seed)
        content["localization"] = localization.to_json(found)
        click.echo("\n" + localization.to_markdown(found))
    for remark in _remarks(evaluation, matched):
        click.echo(remark, err=True)
    if json_path:
        _write(json_path, content, matched)
    if curves:
        save_curves(curves, matched.scores, matched.labels, evaluation)
    if reliability:
        calibration.save_reliability(reliability, matched)
    return 1 if matched.errors or matched.unlabelled else 0


def _remarks(evaluation: Evaluation, matched: Matched) -> list[str]:
    drawn = f"{evaluation.patients} patients" if matched.patients is not None else "images, as no patient_id is given"
    drawn = f"{evaluation.resamples} resamples of {drawn}, seed {evaluation.seed}"
    remarks = [f"{evaluation.images} images; intervals from {drawn}"]
    if evaluation.left_out:
        remarks.append(f"not in the mean, without positives or without negatives: {', '.join(evaluation.left_out)}")
    if evaluation.mean_resamples < evaluation.resamples:
        remarks.append(
            f"the mean's interval is from the {evaluation.mean_resamples} resamples in which all its findings occur"
        )
    for count, what in (
        (matched.errors, "rows of SCORES left out: files that could not be scored"),
        (matched.unlabelled, "rows of SCORES left out: not in LABELS"),
        (matched.unscored, "rows of LABELS without a score"),
    ):
        if count:
            remarks.append(f"{count} {what}")
    return remarks


def _write(path: Path, results: Mapping[str, Any], matched: Matched) -> None:
    content = {
        **results,
        "resampled": "patients" if matched.patients is not None else "images",
        "scores_with_errors": matched.errors,
        "scores_without_labels": matched.unlabelled,
        "labels_without_scores": matched.unscored,
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
