"""What `cxr-trt report` reads beside the table: the journal of a run, labels, boxes."""

import json
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from cxr_trt.commands.progress import in_words
from cxr_trt.commands.run import PROGRESS_KEY
from cxr_trt.errors import UsageError
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.outputs import is_locked
from cxr_trt.report.cases import Cases, read_cases
from cxr_trt.report.truth import NamedBox, Truth
from cxr_trt.score.journal import Journal
from cxr_trt.tables.boxes import place_boxes
from cxr_trt.tables.labels import read_labels
from cxr_trt.tables.reading import read_facts
from cxr_trt.tables.writing import ENGINE_KEY, CsvWriter
from cxr_trt.words import quantity

COPIES = 10  # tries to copy a journal that is being written
WAL_HEADER_BYTES = 32


@dataclass(frozen=True)
class Origin:
    """Where the cases of a report come from. engine: in words, if known. state: how far a run is that has no table."""

    engine: str | None = None
    state: str | None = None


def read_cases_or_journal(scores: Path) -> tuple[Cases, Origin]:
    """Read a table, or while its run is going on, or was stopped before there was a table, the rows that it has so far.

    Raises:
        UsageError: neither can be read.
    """
    file = scores.with_name(f"{scores.name}.journal")
    is_running = is_locked(scores.with_name(f".{scores.name}.lock"))
    if not file.is_file():
        return read_cases(scores), Origin(read_facts(scores).get(ENGINE_KEY))
    with tempfile.TemporaryDirectory() as name:
        copy_journal(file, Path(name, "journal"))
        with Journal(Path(name, "journal"), fresh=False) as journal:
            engine, findings = journal.fact(ENGINE_KEY), journal.fact("findings")
            if scores.exists() and not is_running:
                return read_cases(scores), Origin(engine)
            if findings is None:
                raise UsageError(f"{file}: has no rows yet, or is of an earlier version; wait for {scores}")
            table = Path(name, "scores.csv")
            with table.open("w", newline="", encoding="utf-8") as stream:
                writer = CsvWriter(stream, json.loads(findings))
                for row in journal.all_rows():
                    writer.write(row)
            return read_cases(table), Origin(engine, _state(journal.fact(PROGRESS_KEY), is_running=is_running))


def _state(note: str | None, *, is_running: bool) -> str:
    """How far a run is, in a sentence."""
    if note is None:
        return "The run has not scored any file yet." if is_running else "The run was stopped."
    numbers = json.loads(note)
    at = datetime.fromisoformat(numbers["at"]).strftime("%Y-%m-%d %H:%M:%S")
    read = f"{numbers['done']:,} of {quantity(numbers['total'], 'file')}, {quantity(numbers['errors'], 'error')}"
    if not is_running:
        return f"The run was stopped at {at}, after {read}; the same command again continues it."
    if numbers["has_ended"]:
        return f"The run was writing its table at {at}: {read}."
    left = "" if numbers["seconds_left"] is None else f", about {in_words(numbers['seconds_left'])} left"
    speed = f"{numbers['files_per_second']:.2f} files/s"
    return f"The run is going on. At {at} it had read {read}; {speed}{left}."


def copy_journal(journal: Path, target: Path) -> None:
    """Copy the journal of a run that may be writing it: once more if the two files of it do not belong together."""
    wal = journal.with_name(f"{journal.name}-wal")
    for _ in range(COPIES):
        before = _version(journal, wal)
        for source, copy in ((journal, target), (wal, target.with_name(f"{target.name}-wal"))):
            with suppress(FileNotFoundError):
                shutil.copy(source, copy)
        if _version(journal, wal) == before:
            return
    raise UsageError(f"{journal}: changes too fast to be read; try again")


def _version(journal: Path, wal: Path) -> tuple[int, bytes]:
    """Changes when SQLite moves what stands in the log into the database (sqlite.org/fileformat2.html, section 4.1)."""
    with suppress(FileNotFoundError), wal.open("rb") as stream:
        return journal.stat().st_mtime_ns, stream.read(WAL_HEADER_BYTES)
    return journal.stat().st_mtime_ns, b""


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
