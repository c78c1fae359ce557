"""Reading a table of scores and a table of labels, and joining them image by image."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cxr_trt.calibrate.calibration import CALIBRATED_COLUMNS, POSITIVE_COLUMNS
from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.tables.matching import Matching, match
from cxr_trt.tables.nih import is_nih_label_file, read_nih_labels

MAX_HEADER_BYTES = 65536  # of a CSV file, to tell its separator and whether it is text


@dataclass(frozen=True)
class LabelledScores:
    """The images that have both scores and labels, in the order of SCORES.

    scores: float64 [N, 14].
    labels: bool [N, 14].
    patients: identifiers [N]; None if LABELS does not name patients.
    engines: the fingerprints in SCORES; None if it has no such column.
    calibrated, positive: float64 and bool [N, 14], NaN and False for findings that were not fitted; None if SCORES has
        no calibration.
    matching: how the images of SCORES were matched.
    errors: number of error rows in SCORES.
    unlabelled: number of rows in SCORES that LABELS does not have.
    unscored: number of rows in LABELS that SCORES does not have.
    """

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
    values: bool [N, 14].
    patients: identifiers [N]; None if the table does not name patients.
    """

    path: Path
    images: list[str]
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


def read_labels(path: Path) -> Labels:
    """Read a table of labels: `image`, optionally `patient_id`, and the 14 findings as 0 or 1; or NIH's own file.

    Raises:
        UsageError: it cannot be read, lacks a column, names an image twice, has an empty patient_id or a label other
            than 0 and 1.
    """
    if is_nih_label_file(path):
        names, labels, patient_ids = read_nih_labels(path)
        return Labels(path, _check_names(names, path), labels, patient_ids)
    table = read_table(path, ("image", *FINDINGS), optional=("patient_id",), text=("image", "patient_id"))
    images, values = _names(table, "image", path), _matrix(table)
    _check(np.isin(values, (0, 1)), values, images, path, "must be 0 or 1")
    if "patient_id" not in table.schema.names:
        return Labels(path, images, values.astype(bool), None)
    patients: list[str] = []
    for image, patient in zip(images, table["patient_id"].to_pylist(), strict=True):
        if not patient:
            raise UsageError(f"{path}: the patient_id of {image!r} is empty; fill it or remove the column")
        patients.append(patient)
    return Labels(path, images, values.astype(bool), patients)


def read_labelled_scores(scores: Path, labels: Path) -> LabelledScores:
    """Read both tables and join them.

    Raises:
        UsageError: a table cannot be read, lacks a column, names an image twice, or has a label other than 0 and 1 or a
            score that is not a number; a name could belong to several rows; or no image has both scores and labels.
    """
    texts = ("path", "error", "engine", *POSITIVE_COLUMNS)
    scored = read_table(
        scores, ("path", *FINDINGS), optional=("error", "engine", *CALIBRATED_COLUMNS, *POSITIVE_COLUMNS), text=texts
    )
    all_paths, truth = _names(scored, "path", scores), read_labels(labels)
    columns = scored.schema.names
    errors = scored["error"].to_pylist() if "error" in columns else [None] * len(all_paths)
    failed = np.array([bool(reason) for reason in errors])
    if failed.all():
        raise UsageError(f"{scores}: every row is an error row; there is nothing to evaluate")
    kept = np.flatnonzero(~failed)
    paths = [all_paths[i] for i in kept]
    partners = truth.rows(paths, scores)
    probabilities = _matrix(scored)[kept]
    _check(np.isfinite(probabilities), probabilities, paths, scores, "must be a number")
    found = np.array([partner is not None for partner in partners])
    rows = [partner for partner in partners if partner is not None]
    has_calibration = {*CALIBRATED_COLUMNS, *POSITIVE_COLUMNS} <= set(columns)
    return LabelledScores(
        scores=probabilities[found],
        labels=truth.values[rows],
        patients=[truth.patients[row] for row in rows] if truth.patients else None,
        engines=frozenset(scored["engine"].to_pylist()) if "engine" in columns else None,
        calibrated=_matrix(scored, CALIBRATED_COLUMNS)[kept][found] if has_calibration else None,
        positive=(_columns(scored, POSITIVE_COLUMNS) == "yes")[kept][found] if has_calibration else None,
        matching=truth.matching(paths, partners),
        errors=int(failed.sum()),
        unlabelled=int((~found).sum()),
        unscored=len(truth.images) - len(rows),
    )


def read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...], text: tuple[str, ...]) -> pa.Table:
    """Read columns of a .csv or .parquet file: those in `text` as strings, the others as float64.

    Args:
        path: the file.
        required: names of columns that it must have.
        optional: names of columns that it may have.
        text: names of the columns that are text.

    Raises:
        UsageError: it cannot be read, or lacks a required column.
    """
    types = {name: pa.string() if name in text else pa.float64() for name in (*required, *optional)}
    if path.suffix != ".parquet":
        _check_text(path, required)
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            parsing = pacsv.ParseOptions(newlines_in_values=True)
            table = pacsv.read_csv(path, None, parsing, pacsv.ConvertOptions(column_types=types))
        if missing := [name for name in required if name not in table.schema.names]:
            raise UsageError(f"{path}: has no column {', '.join(missing)}; it needs {', '.join(required)}")
        if repeated := [name for name, count in Counter(table.schema.names).items() if count > 1 and name in types]:
            raise UsageError(f"{path}: has more than one column {', '.join(repeated)}; keep one")
        wanted = [name for name in types if name in table.schema.names]
        return table.select(wanted).cast(pa.schema([(name, types[name]) for name in wanted]))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such table") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path}: cannot be read as a table ({reason}); give a .csv or .parquet file") from error


def _check_text(path: Path, required: tuple[str, ...]) -> None:
    """Raise UsageError if a file is not text, or if its columns are separated by anything but commas."""
    try:
        with path.open("rb") as stream:
            start = stream.read(MAX_HEADER_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such table") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a .csv or .parquet file") from error
    if b"\0" in start:
        raise UsageError(f"{path}: not a table but a binary file; give a .csv or .parquet file")
    header = start.decode("utf-8-sig", "replace").split("\n", 1)[0]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if set(required) <= {cell.strip().strip('"') for cell in header.split(separator)} and separator in header:
            raise UsageError(f"{path}: its columns are separated by {name}; save it as CSV with commas")


def _names(table: pa.Table, column: str, path: Path) -> list[str]:
    return _check_names([name or "" for name in table[column].to_pylist()], path)


def _check_names(names: list[str], path: Path) -> list[str]:
    if not names:
        raise UsageError(f"{path}: has no rows")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{path}: {name!r} has {count} rows; an image must have one")
    return names


def read_paths(scores: Path) -> list[str]:
    """Read the paths of a table of scores, without error rows. Raises UsageError as `read_labelled_scores` does."""
    table = read_table(scores, ("path",), optional=("error",), text=("path", "error"))
    errors = table["error"].to_pylist() if "error" in table.schema.names else [None] * len(table)
    return [path for path, error in zip(_names(table, "path", scores), errors, strict=True) if not error]


def _matrix(table: pa.Table, names: tuple[str, ...] = FINDINGS) -> npt.NDArray[np.float64]:
    """A column per finding, [rows, 14]; NaN where a cell is empty."""
    return _columns(table, names).astype(np.float64)


def _columns(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[Any]:
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def _check(
    good: npt.NDArray[np.bool_], values: npt.NDArray[np.float64], names: list[str], path: Path, rule: str
) -> None:
    if not good.all():
        row, column = np.argwhere(~good)[0]
        value = values[row, column]
        shown = "empty" if np.isnan(value) else f"{value:g}"
        raise UsageError(f"{path}: {FINDINGS[column]} of {names[row]!r} is {shown}; it {rule}")
