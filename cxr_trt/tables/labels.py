"""Reading a table of labels, and joining it with a table of scores image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.calibrate.calibration import calibrated_column, positive_column
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS, is_reserved, listed, same_findings
from cxr_trt.tables.matching import Matching, match
from cxr_trt.tables.nih import is_nih_label_file, read_nih_labels
from cxr_trt.tables.reading import check_names, columns_of, matrix, names_of, read_findings, read_header, read_table


@dataclass(frozen=True)
class LabelledScores:
    """The images and findings that have both scores and labels, in the order of SCORES.

    findings: names [F].
    findings_without_labels: the other findings of SCORES.
    scores: float64 [N, F].
    labels: bool [N, F].
    patients: identifiers [N]; None if LABELS does not name patients.
    engines: the fingerprints in SCORES; None if it has no such column.
    calibrated, positive: float64 and bool [N, F], NaN and False for findings that were not fitted; None if SCORES has
        no calibration.
    matching: how the images of SCORES were matched.
    errors: number of error rows in SCORES.
    unlabelled: number of rows in SCORES that LABELS does not have.
    unscored: number of rows in LABELS that SCORES does not have.
    """

    findings: tuple[str, ...]
    findings_without_labels: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.bool_]
    patients: list[str] | None
    engines: frozenset[str | None] | None
    calibrated: npt.NDArray[np.float64] | None
    positive: npt.NDArray[np.bool_] | None
    matching: Matching
    errors: int
    unlabelled: int
    unscored: int

    def check_probabilities(self, path: Path) -> None:
        """Raise UsageError, naming the table at `path`, unless all scores lie between 0 and 1, calibrated or not."""
        for values in (self.scores, self.calibrated):
            if values is not None and (np.nanmin(values, initial=0) < 0 or np.nanmax(values, initial=1) > 1):
                raise UsageError(f"{path}: some scores are below 0 or above 1; calibration needs probabilities")


@dataclass(frozen=True)
class Labels:
    """A table of labels.

    images: names [N].
    findings: those asked for that the table has, F of them, by the names that they were asked for.
    values: bool [N, F].
    patients: identifiers [N]; None if the table does not name patients.
    """

    path: Path
    images: list[str]
    findings: tuple[str, ...]
    values: npt.NDArray[np.bool_]
    patients: list[str] | None

    def rows(self, paths: list[str], source: str | Path) -> list[int | None]:
        """Find the row of each path, or None if there is none.

        Args:
            paths: paths of images.
            source: where the paths come from, for messages.

        Raises:
            UsageError: a name could belong to several rows, or no path has a row.
        """
        partners = match(paths, self.images, source, self.path)
        if all(partner is None for partner in partners):
            raise UsageError(
                f"no image of {source} is in {self.path} (their first are {paths[0]!r} and {self.images[0]!r}); "
                "`path` and `image` must at least have the same file name without suffix"
            )
        return partners

    def matching(self, paths: list[str], partners: list[int | None]) -> Matching:
        """Count how `rows` found the partners of these paths."""
        by_path = sum(row is not None and self.images[row] == path for path, row in zip(paths, partners, strict=True))
        unmatched = partners.count(None)
        return Matching(by_path, len(paths) - by_path - unmatched, unmatched)


def read_labels(path: Path, findings: Sequence[str]) -> Labels:
    """Read a table of labels: `image`, optionally `patient_id`, and findings as 0 or 1; or NIH's own file.

    Args:
        path: the file.
        findings: the findings to read labels of, if the table has them; none to read images and patients alone. Their
            names may differ in case, and in spaces where the table has underscores.

    Raises:
        UsageError: it cannot be read, has no column `image` or none of the findings, names an image twice, has an empty
            patient_id or a label other than 0 and 1.
    """
    if is_nih_label_file(path):
        names, labels, patient_ids = read_nih_labels(path)
        columns = _common(findings, FINDINGS, path)
        values = labels[:, [FINDINGS.index(column) for column in columns.values()]]
        return Labels(path, check_names(names, path), tuple(columns), values, patient_ids)
    header = read_header(path, ("image",))
    columns = _common(findings, [name for name in header if not is_reserved(name)], path) if "image" in header else {}
    wanted = tuple(columns.values())
    table = read_table(path, ("image", *wanted), optional=("patient_id",), text=("image", "patient_id"))
    images, numbers = names_of(table, "image", path), matrix(table, wanted)
    _check(np.isin(numbers, (0, 1)), numbers, images, wanted, path, "must be 0 or 1")
    labels = numbers.astype(bool)
    if "patient_id" not in table.schema.names:
        return Labels(path, images, tuple(columns), labels, None)
    patients: list[str] = []
    for image, patient in zip(images, table["patient_id"].to_pylist(), strict=True):
        if not patient:
            raise UsageError(f"{path}: the patient_id of {image!r} is empty; fill it or remove the column")
        patients.append(patient)
    return Labels(path, images, tuple(columns), labels, patients)


def _common(wanted: Sequence[str], offered: Sequence[str], path: Path) -> dict[str, str]:
    """`same_findings` of a table of labels. Raises UsageError if there are none."""
    same = same_findings(wanted, offered)
    if wanted and not same:
        raise UsageError(f"{path}: has none of the findings {listed(wanted)}; name its columns after them")
    return same


def read_labelled_scores(scores: Path, labels: Path) -> LabelledScores:
    """Read both tables and join them: the images and the findings that both have.

    Raises:
        UsageError: a table cannot be read, lacks a column, names an image twice, or has a label other than 0 and 1 or a
            score that is not a number; a name could belong to several rows; or no image or no finding has both scores
            and labels.
    """
    offered = read_findings(scores)
    truth = read_labels(labels, offered)
    findings = truth.findings
    calibrated, positive = (tuple(map(column, findings)) for column in (calibrated_column, positive_column))
    texts = ("path", "error", "engine", *positive)
    scored = read_table(scores, ("path", *findings), optional=("error", "engine", *calibrated, *positive), text=texts)
    all_paths = names_of(scored, "path", scores)
    columns = scored.schema.names
    errors = scored["error"].to_pylist() if "error" in columns else [None] * len(all_paths)
    failed = np.array([bool(reason) for reason in errors])
    if failed.all():
        raise UsageError(f"{scores}: every row is an error row; there is nothing to evaluate")
    kept = np.flatnonzero(~failed)
    paths = [all_paths[i] for i in kept]
    partners = truth.rows(paths, scores)
    probabilities = matrix(scored, findings)[kept]
    _check(np.isfinite(probabilities), probabilities, paths, findings, scores, "must be a number")
    found = np.array([partner is not None for partner in partners])
    rows = [partner for partner in partners if partner is not None]
    has_calibration = {*calibrated, *positive} <= set(columns)
    return LabelledScores(
        findings=findings,
        findings_without_labels=tuple(name for name in offered if name not in findings),
        scores=probabilities[found],
        labels=truth.values[rows],
        patients=[truth.patients[row] for row in rows] if truth.patients else None,
        engines=frozenset(scored["engine"].to_pylist()) if "engine" in columns else None,
        calibrated=matrix(scored, calibrated)[kept][found] if has_calibration else None,
        positive=(columns_of(scored, positive) == "yes")[kept][found] if has_calibration else None,
        matching=truth.matching(paths, partners),
        errors=int(failed.sum()),
        unlabelled=int((~found).sum()),
        unscored=len(truth.images) - len(rows),
    )


def _check(
    good: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float64],
    images: list[str],
    findings: tuple[str, ...],
    path: Path,
    rule: str,
) -> None:
    if not good.all():
        row, column = np.argwhere(~good)[0]
        value = values[row, column]
        shown = "empty" if np.isnan(value) else f"{value:g}"
        raise UsageError(f"{path}: {findings[column]} of {images[row]!r} is {shown}; it {rule}")
