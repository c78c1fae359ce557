"""What happened in a run of `cxr-trt score`: rows for the journal, the screen and the summary."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cxr_trt.commands.progress import FileProgress
from cxr_trt.engine.manifest import Manifest
from cxr_trt.images.files import Selection
from cxr_trt.results.writer import ResultWriter
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.score.pipeline import Result
from cxr_trt.tables.rows import NOTICE, Row
from cxr_trt.tables.uids import UidColumns

MAX_SHOWN_ROWS = 50
MAX_SHOWN_ERRORS = 20
MAX_SHOWN_WARNINGS = 5


def describe(manifest: Manifest) -> str:
    """Software, precision and views of an engine."""
    return f"{manifest.backend} {manifest.backend_version}, {manifest.precision}, {manifest.graph.spec.views}"


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
        self._common_warnings = set(engine.warnings)
        self.root, self.uids = selection.root, uids
        self._artifacts_key = "; ".join(writer.artifacts_key for writer in writers) or None
        self.rows, self.errors = Sample(MAX_SHOWN_ROWS), Sample(MAX_SHOWN_ERRORS)
        if journal:
            journal.note_fact("findings", json.dumps(engine.spec.findings))
            journal.note_fact("fingerprint", engine.fingerprint)
            journal.note_fact("engine", describe(engine.manifest))
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
        self._warnings.update(re.sub(r"(?<![A-Za-z])\d+(\.\d+)?", "#", warning) for warning in result.row.warnings)
        if self._journal and not result.is_known:
            self._journal.add(result.row, self._artifacts_key)
        self.rows.add(result.row)
        if result.row.error:
            self.errors.add(result.row)

    def warnings(self) -> list[str]:
        """How many files have a warning of their own, a sentence for each of the most frequent."""
        own = Counter({text: n for text, n in self._warnings.items() if text not in self._common_warnings})
        return [
            f"warning, {count} file{'s' * (count != 1)}: {text}" for text, count in own.most_common(MAX_SHOWN_WARNINGS)
        ]

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
