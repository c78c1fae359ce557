"""What `cxr-trt report` reads beside the table: the journal of a run, labels, boxes."""

import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.report.cases import Cases, read_cases
from cxr_trt.report.truth import NamedBox, Truth
from cxr_trt.score.journal import Journal
from cxr_trt.tables.boxes import place_boxes
from cxr_trt.tables.labels import read_labels
from cxr_trt.tables.writing import CsvWriter


def read_cases_or_journal(scores: Path) -> tuple[Cases, str | None]:
    """Read a table; or, while it is not there yet, the rows that its run has so far. Also what the engine is, if known.

    Raises:
        UsageError: neither can be read.
    """
    file = scores.with_name(f"{scores.name}.journal")
    if not file.is_file():
        return read_cases(scores), None
    with tempfile.TemporaryDirectory() as name:
        for suffix in ("", "-wal"):  # a copy, as the run holds the journal for itself alone
            with suppress(FileNotFoundError):
                shutil.copy(file.with_name(file.name + suffix), Path(name, f"journal{suffix}"))
        with Journal(Path(name, "journal"), fresh=False) as journal:
            engine, findings = journal.fact("engine"), journal.fact("findings")
            if scores.exists():
                return read_cases(scores), engine
            if findings is None:
                raise UsageError(f"{file}: has no rows yet, or is of an earlier version; wait for {scores}")
            table = Path(name, "scores.csv")
            with table.open("w", newline="", encoding="utf-8") as stream:
                writer = CsvWriter(stream, json.loads(findings))
                for row in journal.all_rows():
                    writer.write(row)
            return read_cases(table), engine


def read_truth(cases: Cases, scores: Path, labels: Path | None, boxes: Path | None) -> Truth:
    """Read labels and boxes of cases. Raises UsageError as `read_labels` and `place_boxes` do."""
    known, areas = _labels(cases, scores, labels) if labels else ({}, ())
    return Truth(known, _boxes(cases, scores, boxes) if boxes else {}, areas)


def _labels(
    cases: Cases, scores: Path, path: Path
) -> tuple[dict[str, tuple[bool | None, ...]], tuple[float | None, ...]]:
    table = read_labels(path, cases.findings)
    places = [table.findings.index(name) if name in table.findings else None for name in cases.findings]
    partners = table.rows([case.path for case in cases.cases], scores)
    found = [(case, row) for case, row in zip(cases.cases, partners, strict=True) if row is not None]
    labels: dict[str, tuple[bool | None, ...]] = {
        case.path: tuple(None if place is None else bool(table.values[row, place]) for place in places)
        for case, row in found
    }
    kept = [i for i, place in enumerate(places) if place is not None]
    values = np.array([[case.scores[i] for i in kept] for case, _ in found])
    truth = np.array([[labels[case.path][i] for i in kept] for case, _ in found], bool)
    names = [cases.findings[i] for i in kept]
    evaluation = evaluate(names, values, truth, range(len(found)), resamples=0)
    areas = tuple(evaluation.findings[name].auc if name in names else None for name in cases.findings)
    return labels, areas


def _boxes(cases: Cases, scores: Path, path: Path) -> dict[str, list[NamedBox]]:
    boxes = place_boxes(path, [case.path for case in cases.cases], scores, cases.findings).by_path
    placed: dict[str, list[NamedBox]] = {}
    for case in cases.cases:
        height, width = case.size
        if case.path in boxes and height and width:
            placed[case.path] = [
                (finding, y / height, x / width, down / height, across / width)
                for finding, (y, x, down, across) in boxes[case.path]
            ]
    return placed
