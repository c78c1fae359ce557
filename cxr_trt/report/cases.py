"""Reading a table of scores for the report: cases, errors, and what all cases have in common."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cxr_trt.calibrate.calibration import calibrated_column, positive_column
from cxr_trt.tables.reading import read_findings, read_table

TEXT_COLUMNS = ("path", "sha256", "format", "warnings", "error", "engine", "calibration")


@dataclass(frozen=True)
class Case:
    """An X-ray that was scored.

    size: (height, width) of its file in pixels, 0 if unknown.
    calibrated, positive: a value per finding, None for a finding that was not fitted; None without a calibration.
    """

    path: str
    sha256: str
    size: tuple[int, int]
    format: str
    scores: tuple[float, ...]
    calibrated: tuple[float | None, ...] | None
    positive: tuple[bool | None, ...] | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Cases:
    """A whole table.

    findings: names, in the order of the scores of each case.
    errors: (path, reason) of each file that could not be scored.
    common_warnings: the warnings that all cases have; they are left out of the cases' own.
    warnings: the other warnings, and how many cases have each.
    engines, calibrations: fingerprints.
    """

    findings: tuple[str, ...]
    cases: list[Case]
    errors: list[tuple[str, str]]
    common_warnings: tuple[str, ...]
    warnings: Counter[str]
    engines: tuple[str, ...]
    calibrations: tuple[str, ...]


def read_cases(scores: Path) -> Cases:
    """Read a table of scores.

    Raises:
        UsageError: it cannot be read, or lacks a column.
    """
    findings = read_findings(scores)
    calibrated, positive = (tuple(map(column, findings)) for column in (calibrated_column, positive_column))
    optional = (*TEXT_COLUMNS[1:], "width", "height", *calibrated, *positive)
    table = read_table(scores, ("path", *findings), optional=optional, text=(*TEXT_COLUMNS, *positive))
    rows: list[dict[str, Any]] = table.to_pylist()
    errors = [(row["path"] or "", row["error"]) for row in rows if row.get("error")]
    scored = [row for row in rows if not row.get("error") and all(row[name] is not None for name in findings)]
    lists = [_warnings(row) for row in scored]
    counts = Counter(warning for warnings in lists for warning in dict.fromkeys(warnings))
    common = tuple(warning for warning, count in counts.items() if count == len(scored))
    cases = [
        _case(row, findings, tuple(warning for warning in warnings if warning not in common))
        for row, warnings in zip(scored, lists, strict=True)
    ]
    rare = Counter({warning: count for warning, count in counts.items() if warning not in common})
    return Cases(findings, cases, errors, common, rare, *(_distinct(table, name) for name in ("engine", "calibration")))


def _warnings(row: dict[str, Any]) -> list[str]:
    return (row.get("warnings") or "").split("; ") if row.get("warnings") else []


def _case(row: dict[str, Any], findings: tuple[str, ...], warnings: tuple[str, ...]) -> Case:
    calibrated, positive = (tuple(map(column, findings)) for column in (calibrated_column, positive_column))
    has_calibration = row.get("calibration") and all(name in row for name in (*calibrated, *positive))
    answers = {"yes": True, "no": False}
    return Case(
        path=row["path"] or "",
        sha256=row.get("sha256") or "",
        size=(int(row.get("height") or 0), int(row.get("width") or 0)),
        format=row.get("format") or "",
        scores=tuple(row[name] for name in findings),
        calibrated=tuple(row[name] for name in calibrated) if has_calibration else None,
        positive=tuple(answers.get(row[name]) for name in positive) if has_calibration else None,
        warnings=warnings,
    )


def _distinct(table: pa.Table, column: str) -> tuple[str, ...]:
    if column not in table.schema.names:
        return ()
    return tuple(sorted({value for value in table[column].to_pylist() if value}))
