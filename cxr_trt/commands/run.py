"""What happened in a run of `cxr-trt score`: rows for the journal, the screen and the summary."""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from cxr_trt.commands.progress import FileProgress
from cxr_trt.images.files import Selection
from cxr_trt.results.writer import ResultWriter
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import Result
from cxr_trt.tables.rows import NOTICE, Row
from cxr_trt.tables.uids import UidColumns
from cxr_trt.tables.writing import ENGINE_KEY
from cxr_trt.words import quantity

MAX_SHOWN_ROWS = 50
MAX_SHOWN_ERRORS = 20
MAX_SHOWN_WARNINGS = 5
SECONDS_BETWEEN_NOTES = 2  # on how far a run is, in its journal
PROGRESS_KEY = "progress"  # of that note


class Sample:
    """Keeps the first rows that are added, and counts them all."""

    def __init__(self, size: int) -> None:
        self.size, self.total = size, 0
        self.kept: list[Row] = []

    def add(self, row: Row) -> None:
        self.total += 1
        if len(self.kept) < self.size:
            self.kept.append(row)


class Run:
    """The rows of a run: all of them in the journal, and the first of them to show."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal | None,
        writers: Sequence[ResultWriter],
        selection: Selection,
        uids: UidColumns | None = None,
    ) -> None:
        self._engine, self._journal, self._writers, self._sources = engine, journal, writers, selection.sources
        self.skipped, self._skipped_paths = Counter(selection.skipped), set[str]()
        self._warnings: Counter[str] = Counter()
        self._doubted = 0
        self._last_note = -math.inf
        self._common_warnings = set(engine.warnings)
        self.root, self.uids = selection.root, uids
        self._artifacts_key = "; ".join(writer.artifacts_key for writer in writers) or None
        self.rows, self.errors = Sample(MAX_SHOWN_ROWS), Sample(MAX_SHOWN_ERRORS)
        if journal:
            journal.note_fact("findings", json.dumps(engine.spec.findings))
            journal.note_fact("fingerprint", engine.fingerprint)
            journal.note_fact(ENGINE_KEY, engine.manifest.describe_model())
            for writer in writers:
                journal.note_made(str(writer.folder.resolve()))

    def known_row(self, path: str) -> Row | None:
        """The row of an earlier run, if all the files that are wanted beside it are still there."""
        row = self._journal.row(path, self._engine.fingerprint, self._artifacts_key) if self._journal else None
        if row is None or (self.uids and row.uid_kind != self.uids.kind):
            return None
        return row if all(writer.has_written(row) for writer in self._writers) else None

    def with_uids(self, result: Result) -> Result:
        """The result with the UIDs that are asked for in its row."""
        if not self.uids or result.is_known or result.skipped:
            return result
        return replace(result, row=self.uids.added_to(result.row, result.identity))

    @property
    def paths(self) -> Iterator[str]:
        """Of the rows of the table, in order."""
        return (source.name for source in self._sources if source.name not in self._skipped_paths)

    def add(self, result: Result) -> None:
        if result.skipped:
            self.skipped[result.skipped] += 1
            self._skipped_paths.add(result.row.path)
            return
        self._warnings.update(_kind(warning) for warning in result.row.warnings)
        self._doubted += any(warning not in self._common_warnings for warning in result.row.warnings)
        if self._journal and not result.is_known:
            self._journal.add(result.row, self._artifacts_key)
        self.rows.add(result.row)
        if result.row.error:
            self.errors.add(result.row)

    def note_progress(self, progress: FileProgress, *, has_ended: bool = False) -> None:
        """Write into the journal how far the run is, at most every SECONDS_BETWEEN_NOTES, for `cxr-trt report`."""
        now = time.monotonic()
        if self._journal and (has_ended or now - self._last_note >= SECONDS_BETWEEN_NOTES):
            self._last_note = now
            at = datetime.now().astimezone().isoformat(timespec="seconds")
            self._journal.note_fact(PROGRESS_KEY, json.dumps({**progress.numbers(), "at": at, "has_ended": has_ended}))

    def warnings(self) -> list[str]:
        """How many files have warnings of their own, and the most frequent ones, a sentence each."""
        common = set(map(_kind, self._common_warnings))
        own = Counter({kind: count for kind, count in self._warnings.items() if kind not in common}).most_common()
        if not own:
            return []
        shown = [f"{quantity(count, 'file')}: {kind}" for kind, count in own[:MAX_SHOWN_WARNINGS]]
        more = [f"and {quantity(len(own) - len(shown), 'more kind')} of warnings"] if len(own) > len(shown) else []
        return [f"{quantity(self._doubted, 'file')} with warnings, all in the table", *shown, *more]

    def summary(self, progress: FileProgress) -> dict[str, Any]:
        """Plain values for a JSON file. Warnings are counted by kind: their numbers are left out."""
        return {
            "scored": progress.scored,
            "scored_in_an_earlier_run": progress.known,
            "failed": progress.errors,
            "skipped": dict(self.skipped),
            "warnings": dict(self._warnings),
            "seconds": round(time.monotonic() - progress.started, 3),
            "engine": self._engine.fingerprint,
            "root": self.root,
            "notice": NOTICE,
        }


def _kind(warning: str) -> str:
    """A warning without its numbers, which differ from file to file."""
    return re.sub(r"(?<![A-Za-z])\d+(\.\d+)?", "#", warning)
