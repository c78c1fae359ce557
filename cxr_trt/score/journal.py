"""The journal of a table: each row is on the disk as soon as it is made, and the next run of the command finds it.

A SQLite database beside the table, kept when the table is finished: so the same command again scores only what is new
or changed. A row is kept for the same content of the file and the same engine. What a crash of the whole machine can
take are the last rows; they are then scored again.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_trt.closing import Closing
from cxr_trt.errors import UsageError
from cxr_trt.tables.rows import Row

VERSION = 2  # of the tables below and of the fields of a row
SCHEMA = f"""
BEGIN;
CREATE TABLE scored (
    path TEXT PRIMARY KEY, engine TEXT, artifacts_key TEXT, is_error INTEGER, row TEXT
) WITHOUT ROWID;
CREATE TABLE made (what TEXT PRIMARY KEY) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""
"""`artifacts_key` says which files were written beside a row, and where (`cxr_trt.results.writer.ResultWriter`). `made`
holds what this command made and may therefore replace: hashes of tables, and folders of such files."""

FROM_VERSION_1 = f"""
BEGIN;
ALTER TABLE scored RENAME COLUMN heatmaps TO artifacts_key;
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Journal(Closing):
    """An open journal; a context manager. One process at a time: hold `cxr_trt.outputs.locked` on the table."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        """Open or make the journal at `path`; if `fresh`, forget the rows that it holds, or replace what is no journal.

        Raises:
            UsageError: it cannot be written, or is no journal of this version.
        """
        self.path = path
        with self._sentences():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not fresh or isinstance(error, sqlite3.OperationalError):
                    raise
                self._remove()
                self._open()
            if fresh:
                self._db.execute("DELETE FROM scored")

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None)  # each statement is a transaction
        try:
            self._prepare()
        except sqlite3.DatabaseError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory, so network drives will do
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._db.executescript(SCHEMA)
        elif version == 1:
            self._db.executescript(FROM_VERSION_1)
        elif version != VERSION:
            raise sqlite3.DatabaseError("it is of another version of cxr-trt")

    def row(self, path: str, engine: str, artifacts_key: str | None) -> Row | None:
        """The row of a file, if it was scored by that engine and, with a key, its other files were written so."""
        query = (
            "SELECT row FROM scored WHERE path = ? AND engine = ? AND NOT is_error AND (? IS NULL OR artifacts_key = ?)"
        )
        with self._sentences():
            found = self._db.execute(query, (path, engine, artifacts_key, artifacts_key)).fetchone()
            return _parse(found[0]) if found else None

    def add(self, row: Row, artifacts_key: str | None) -> None:
        """Keep a row, in place of an older one of the same path."""
        values = (row.path, row.engine, artifacts_key, row.error is not None, json.dumps(dataclasses.asdict(row)))
        with self._sentences():
            self._db.execute("INSERT OR REPLACE INTO scored VALUES (?, ?, ?, ?, ?)", values)

    def rows(self, paths: Iterable[str]) -> Iterator[Row]:
        """The rows of these paths, each of which has one."""
        for path in paths:
            with self._sentences():
                row = _parse(self._db.execute("SELECT row FROM scored WHERE path = ?", (path,)).fetchone()[0])
            yield row

    def count(self) -> int:
        """How many rows it holds."""
        with self._sentences():
            return int(self._db.execute("SELECT count(*) FROM scored").fetchone()[0])

    def note(self, made: str) -> None:
        """Keep in mind that something was made by this command."""
        with self._sentences():
            self._db.execute("INSERT OR IGNORE INTO made VALUES (?)", (made,))

    def has_made(self, what: str) -> bool:
        with self._sentences():
            return bool(self._db.execute("SELECT 1 FROM made WHERE what = ?", (what,)).fetchone())

    def close(self) -> None:
        """Close it; remove it if no other run could want it."""
        with self._sentences():
            try:
                wanted = "SELECT EXISTS (SELECT 1 FROM scored WHERE NOT is_error) OR EXISTS (SELECT 1 FROM made)"
                is_wanted = self._db.execute(wanted).fetchone()[0]
            finally:
                self._db.close()
            if not is_wanted:
                self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, LookupError, ValueError, TypeError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            if isinstance(error, sqlite3.OperationalError | OSError):
                raise UsageError(f"{self.path}: cannot be written ({reason}); mend that and run it again") from error
            raise UsageError(f"{self.path}: not a journal ({reason}); add --fresh to start over") from error


def _parse(text: str) -> Row:
    fields = json.loads(text)
    for name in ("probabilities", "warnings"):
        fields[name] = None if fields[name] is None else tuple(fields[name])
    return Row(**fields)
