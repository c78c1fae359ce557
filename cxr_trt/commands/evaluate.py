"""The command `cxr-trt evaluate`: compares scores with labels. Markdown to standard output, JSON to a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, finish, json_option, overwrite_option, resampling_options
from cxr_trt.commands.terminal import show_markdown
from cxr_trt.errors import UsageError
from cxr_trt.evaluate import localization, reliability, wang
from cxr_trt.evaluate.auc import Evaluation, to_json, to_markdown
from cxr_trt.evaluate.auc import evaluate as evaluate_auc
from cxr_trt.evaluate.boxes import localize_boxes
from cxr_trt.evaluate.curves import PLOT_SUFFIXES, check_plots, save_curves
from cxr_trt.findings import listed
from cxr_trt.outputs import check_output, replacing
from cxr_trt.tables.labels import LabelledScores, read_labelled_scores
from cxr_trt.words import quantity


@click.command()
@click.argument("scores", type=PATH)
@click.argument("labels", type=PATH)
@json_option
@click.option("--curves", type=PATH, help="Draw the ROC curves: a .png, .svg or .pdf file.")
@click.option("--reliability", "diagram", type=PATH, help="Draw the reliability diagram: a .png, .svg or .pdf file.")
@click.option(
    "--boxes", type=PATH, help="Also evaluate where findings are seen: a CSV of boxes, or NIH's BBox_List_2017.csv."
)
@click.option("--maps", type=PATH, help="With --boxes: the folder of `score --heatmaps FOLDER --raw-maps`.")
@click.option(
    "--wang",
    "as_wang",
    is_flag=True,
    help="With --boxes: also as Wang et al. 2017 report it, with several boxes per map and false positives.",
)
@resampling_options
@overwrite_option
@message_options
def evaluate(
    scores: Path,
    labels: Path,
    json_path: Path | None,
    curves: Path | None,
    diagram: Path | None,
    boxes: Path | None,
    maps: Path | None,
    as_wang: bool,
    resamples: int,
    seed: int,
    overwrite: bool,
) -> None:
    """Compare SCORES, a table of `cxr-trt score`, with LABELS: AUC per finding, with 95 % intervals over patients.

    LABELS is a CSV with the columns `image`, optionally `patient_id`, and findings of SCORES as 0 or 1, or NIH's
    Data_Entry_2017.csv. Images are matched by path, or else by file name without suffix, and findings by name. A
    calibrated table is evaluated for its calibration error too. Boxes have the columns `image`, `finding`, `x`, `y`,
    `width` and `height`, in pixels of the scored file.
    """
    if bool(boxes) != bool(maps):
        raise UsageError(
            "--boxes and --maps go together: the boxes, and the folder of `cxr-trt score --heatmaps FOLDER --raw-maps`"
        )
    if as_wang and not boxes:
        raise UsageError("--wang needs --boxes and --maps, which it evaluates in another way too")
    if json_path:
        check_output(json_path, (".json",), overwrite=overwrite)
    for picture in filter(None, (curves, diagram)):
        check_output(picture, PLOT_SUFFIXES, overwrite=overwrite)
        check_plots()
    matched = read_labelled_scores(scores, labels)
    patients = matched.patients if matched.patients is not None else range(len(matched.scores))
    evaluation = evaluate_auc(
        matched.findings, matched.scores, matched.labels, patients, resamples=resamples, seed=seed
    )
    content = to_json(evaluation)
    show_markdown(to_markdown(evaluation))
    if diagram or matched.calibrated is not None:
        matched.check_probabilities(scores)
        errors = reliability.evaluate_calibration(matched)
        content["calibration"] = reliability.to_json(errors)
        show_markdown("\n" + reliability.to_markdown(errors))
    if boxes and maps:
        found = localize_boxes(scores, labels, boxes, maps, resamples, seed)
        content["localization"] = localization.to_json(found.localization)
        show_markdown("\n" + localization.to_markdown(found.localization))
        if as_wang:
            content["localization_wang2017"] = wang.to_json(found.wang)
            show_markdown("\n" + wang.to_markdown(found.wang))
        if found.without_scores:
            say(f"{quantity(found.without_scores, 'box')} left out, on images that were not scored")
        if found.other_findings:
            others = listed(found.other_findings)
            say(f"boxes of findings that SCORES lacks were left out: {others}")
    for remark in _remarks(evaluation, matched):
        say(remark)
    if json_path:
        _write(json_path, content, matched)
    if curves:
        save_curves(curves, matched.scores, matched.labels, evaluation)
    if diagram:
        reliability.save_reliability(diagram, matched)
    finish(1 if matched.errors else 0)


def _remarks(evaluation: Evaluation, matched: LabelledScores) -> list[str]:
    resampled = (
        quantity(evaluation.patients, "patient")
        if matched.patients is not None
        else "images, as there is no patient_id"
    )
    resamples = f"{quantity(evaluation.resamples, 'resample')} of {resampled}, seed {evaluation.seed}"
    remarks = [f"{quantity(evaluation.images, 'image')}; intervals from {resamples}", str(matched.matching)]
    if matched.findings_without_labels:
        remarks.append(f"not evaluated, because LABELS lacks them: {listed(matched.findings_without_labels)}")
    if evaluation.left_out:
        remarks.append(f"not in the mean, without positives or without negatives: {', '.join(evaluation.left_out)}")
    if evaluation.mean_resamples < evaluation.resamples:
        remarks.append(
            f"the interval of the mean is from the {quantity(evaluation.mean_resamples, 'resample')} with all findings"
        )
    for count, what in (
        (matched.errors, "of SCORES left out: could not be scored"),
        (matched.unlabelled, "of SCORES left out: not in LABELS"),
        (matched.unscored, "of LABELS without a score"),
    ):
        if count:
            remarks.append(f"{quantity(count, 'row')} {what}")
    return remarks


def _write(path: Path, results: Mapping[str, Any], matched: LabelledScores) -> None:
    content = {
        **results,
        "resampled": "patients" if matched.patients is not None else "images",
        "findings_without_labels": matched.findings_without_labels,
        "matched_by_file_name": matched.matching.by_name,
        "scores_with_errors": matched.errors,
        "scores_without_labels": matched.unlabelled,
        "labels_without_scores": matched.unscored,
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
