"""The command `cxr-trt compare`: scores the same images with two engines, or with an engine and its checkpoint."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import (
    PATH,
    finish,
    graph_options,
    json_option,
    overwrite_option,
    resampling_options,
)
from cxr_trt.commands.progress import FileProgress
from cxr_trt.commands.terminal import show_markdown
from cxr_trt.engine.backend import ScoringEngine
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.evaluate.auc import Floats
from cxr_trt.evaluate.comparison import Comparison, compare_areas, compare_probabilities, to_markdown
from cxr_trt.findings import listed, same_findings
from cxr_trt.images.files import Source, find_files
from cxr_trt.model.settings import CHECKPOINT_SUFFIXES
from cxr_trt.outputs import check_output, replacing
from cxr_trt.score.engine import Engine
from cxr_trt.score.pipeline import score_files
from cxr_trt.tables.labels import Labels, read_labels
from cxr_trt.views import ViewSet
from cxr_trt.words import quantity


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--labels", type=PATH, help="A CSV as for `evaluate`, to compare AUC too.")
@json_option
@click.option(
    "--max-auc-drop", type=click.FloatRange(0), help="Exit with 1 if B's mean AUC is lower than A's by more than this."
)
@resampling_options
@graph_options
@overwrite_option
@message_options
def compare(
    a: Path,
    b: Path,
    images: tuple[Path, ...],
    labels: Path | None,
    json_path: Path | None,
    max_auc_drop: float | None,
    resamples: int,
    seed: int,
    setting: str | None,
    view_set: ViewSet | None,
    overwrite: bool,
) -> None:
    """Score IMAGES with A and with B, each a bundle or a checkpoint, and show how much the scores differ.

    A checkpoint runs in PyTorch, with the views of the bundle it is compared with.
    """
    if max_auc_drop is not None and not labels:
        raise UsageError("--max-auc-drop needs --labels, from which the AUC is computed")
    if json_path:
        check_output(json_path, (".json",), overwrite=overwrite)
    sources = find_files(images).sources
    with ExitStack() as stack:
        one, other = _open(a, b, setting, view_set, stack)
        findings = _common_findings(one, other)
        truth = read_labels(labels, tuple(findings)) if labels else None
        progress = stack.enter_context(FileProgress(len(sources)))
        paths, scores = _score_both(one, other, findings, sources, progress)
    comparison = compare_probabilities(tuple(findings), *scores, paths)
    if truth:
        comparison = _with_areas(comparison, scores, paths, truth, resamples, seed)
    show_markdown(to_markdown(comparison))
    if json_path:
        with replacing(json_path) as partial:
            partial.write_text(json.dumps(comparison.to_json(), indent=2) + "\n", encoding="utf-8")
    finish(_verdict(comparison, max_auc_drop))


def _open(
    a: Path, b: Path, setting: str | None, view_set: ViewSet | None, stack: ExitStack
) -> tuple[ScoringEngine, ScoringEngine]:
    """Open both engines; a checkpoint gets the views of the bundle it is compared with."""
    bundles = {path: stack.enter_context(Engine(path)) for path in (a, b) if path.suffix not in CHECKPOINT_SUFFIXES}
    wanted = view_set
    for engine in bundles.values():
        if wanted and wanted != engine.spec.views:
            raise UsageError(f"--views {wanted}: the bundle was built for {engine.spec.views}; leave the option out")
        view_set = engine.spec.views

    def opened(path: Path) -> ScoringEngine:
        if path in bundles:
            return bundles[path]
        try:
            from cxr_trt.engine.reference import Reference
        except ModuleNotFoundError as error:
            raise BackendError(f"reading a checkpoint needs {error.name}: pip install 'cxr-trt[export]'") from error
        return Reference(path, setting, view_set)

    return opened(a), opened(b)


def _common_findings(a: ScoringEngine, b: ScoringEngine) -> dict[str, str]:
    """The findings of A that B has too, and B's names of them; says which others there are."""
    common = same_findings(a.spec.findings, b.spec.findings)
    if not common:
        raise UsageError(
            f"A and B have no finding in common (A: {listed(a.spec.findings)}; B: {listed(b.spec.findings)})"
        )
    for name, engine, compared in (("A", a, common.keys()), ("B", b, common.values())):
        if others := [finding for finding in engine.spec.findings if finding not in compared]:
            say(f"not compared, because only {name} has them: {listed(others)}")
    return common


def _score_both(
    a: ScoringEngine,
    b: ScoringEngine,
    findings: Mapping[str, str],
    sources: tuple[Source, ...],
    progress: FileProgress,
) -> tuple[list[str], tuple[Floats, Floats]]:
    """The paths of the images that could be read, and their probabilities [N, findings] from both engines."""
    paths: list[str] = []
    scores: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = [], []
    for one, other in zip(score_files(a, sources), score_files(b, sources), strict=True):
        error = one.row.error or other.row.error
        if one.skipped:
            say(f"skipped: {one.row.path} ({one.skipped}), not an X-ray")
            progress.advance(error=False)
            continue
        if one.row.probabilities and other.row.probabilities:
            paths.append(one.row.path)
            scores[0].append(one.row.probabilities)
            scores[1].append(other.row.probabilities)
        else:
            say(f"{one.row.path}: {error}", "error")
        progress.advance(error=error is not None)
    if not paths:
        raise UsageError(f"none of the {quantity(len(sources), 'file')} could be read; nothing was compared")
    own = [a.spec.findings.index(name) for name in findings]
    others = [b.spec.findings.index(name) for name in findings.values()]
    return paths, (np.array(scores[0])[:, own], np.array(scores[1])[:, others])


def _with_areas(
    comparison: Comparison, scores: tuple[Floats, Floats], paths: list[str], truth: Labels, resamples: int, seed: int
) -> Comparison:
    partners = truth.rows(paths, "the images")
    kept = [i for i, partner in enumerate(partners) if partner is not None]
    rows = [partner for partner in partners if partner is not None]
    say(str(truth.matching(paths, partners)))
    if len(kept) < len(paths):
        say(f"{quantity(len(paths) - len(kept), 'image')} without labels, not in the AUC")
    patients = [truth.patients[row] for row in rows] if truth.patients else rows
    compared = list(comparison.rank_correlation)
    columns = [compared.index(name) for name in truth.findings]
    if others := [name for name in compared if name not in truth.findings]:
        say(f"not in the AUC, because --labels lacks them: {listed(others)}")
    one, other = (values[kept][:, columns] for values in scores)
    areas = compare_areas(truth.findings, one, other, truth.values[rows], patients, resamples, seed)
    return replace(comparison, auc=areas)


def _verdict(comparison: Comparison, max_auc_drop: float | None) -> int:
    if max_auc_drop is None or not comparison.auc:
        return 0
    difference = comparison.auc.mean.difference
    if difference is None:
        raise UsageError("no finding has both positives and negatives; --max-auc-drop cannot be checked")
    if -difference <= max_auc_drop:
        return 0
    say(f"the mean AUC drops by {-difference:.4f}, which is more than {max_auc_drop}", "error")
    return 1
