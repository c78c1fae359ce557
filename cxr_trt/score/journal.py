"""The journal of a table: each row is on the disk as soon as it is made, and the next run of the command finds it.

It is a SQLite database beside the table, and stays when the table is finished, so that the same command again scores
only what is new or changed. A row is used again if the file's content and the engine are the same. A crash of the whole
machine can lose the last rows; they are then scored again.
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

FORMAT_VERSION = 3  # raise it when the tables below or the fields of a row change
TABLES_OF_VERSION_3 = """
CREATE TABLE IF NOT EXISTS in_table (position INTEGER PRIMARY KEY, path TEXT);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
SCHEMA = f"""
BEGIN;
CREATE TABLE scored (
    path TEXT PRIMARY KEY, engine TEXT, artifacts_key TEXT, is_error INTEGER, row TEXT
) WITHOUT ROWID;
CREATE TABLE made (what TEXT PRIMARY KEY) WITHOUT ROWID;
{TABLES_OF_VERSION_3}
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
"""
"""`artifacts_key` says which files were written with a row, and where (`cxr_trt.results.writer.ResultWriter`). `made`
lists what this command made and may therefore replace: tables by their hash, and folders of result files. `in_table`
has the rows of the table as it was last written, in order, and `facts` the folder that their paths are relative to."""

UPGRADES = {
    1: f"""
BEGIN;
ALTER TABLE scored RENAME COLUMN heatmaps TO artifacts_key;
{TABLES_OF_VERSION_3}
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
""",
    2: f"""
BEGIN;
{TABLES_OF_VERSION_3}
PRAGMA user_version = {FORMAT_VERSION};
COMMIT;
""",
}


class Journal(Closing):
    """An open journal; a context manager. For one process at a time: hold `cxr_trt.outputs.locked` on the table."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        """Open the journal, or create it.

        Args:
            path: the journal's file.
            fresh: whether to forget its rows, and to replace a file that is not a journal.

        Raises:
            UsageError: it cannot be written, or is not a journal of this version.
        """
        self.path = path
        with self._usage_errors():
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if not fresh or isinstance(error, sqlite3.OperationalError):
                    raise
                self._remove()
                self._open()
            if fresh:
                for name in ("scored", "in_table", "facts"):
                    self._db.execute(f"DELETE FROM {name}")  # noqa: S608 - our own names

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
        elif version in UPGRADES:
            self._db.executescript(UPGRADES[version])
        elif version != FORMAT_VERSION:
            raise sqlite3.DatabaseError("it was made by another version of cxr-trt")

    def row(self, path: str, engine: str, artifacts_key: str | None) -> Row | None:
        """The row of a file that this engine has scored; with a key, only if the files of that key were written too."""
        query = (
            "SELECT row FROM scored WHERE path = ? AND engine = ? AND NOT is_error AND (? IS NULL OR artifacts_key = ?)"
        )
        with self._usage_errors():
            found = self._db.execute(query, (path, engine, artifacts_key, artifacts_key)).fetchone()
            return _parse(found[0]) if found else None

    def add(self, row: Row, artifacts_key: str | None) -> None:
        """Keep a row; it replaces an older row of the same path."""
        values = (row.path, row.engine, artifacts_key, row.error is not None, json.dumps(dataclasses.asdict(row)))
        with self._usage_errors():
            self._db.execute("INSERT OR REPLACE INTO scored VALUES (?, ?, ?, ?, ?)", values)

    def rows(self, paths: Iterable[str]) -> Iterator[Row]:
        """The rows of these paths, all of which must have one."""
        for path in paths:
            with self._usage_errors():
                row = _parse(self._db.execute("SELECT row FROM scored WHERE path = ?", (path,)).fetchone()[0])
            yield row

    def fact(self, name: str) -> str | None:
        """What was noted, by a name such as `root`, the folder that paths of the table are relative to."""
        with self._usage_errors():
            found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return found[0] if found else None

    def note_fact(self, name: str, value: str) -> None:
        with self._usage_errors():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def all_rows(self) -> Iterator[Row]:
        """The rows of the engine that wrote the last one, of whatever files."""
        with self._usage_errors():
            for (text,) in self._db.execute(
                "SELECT row FROM scored WHERE engine = (SELECT value FROM facts WHERE name = 'fingerprint')"
            ):
                yield _parse(text)

    def table_paths(self) -> list[str]:
        """The paths of the table as it was last written, in order."""
        with self._usage_errors():
            return [path for (path,) in self._db.execute("SELECT path FROM in_table ORDER BY position")]

    def other_engines(self, paths: Iterable[str], engine: str) -> list[str]:
        """The engines other than this one that made rows of these paths."""
        with self._usage_errors():
            query = "SELECT engine FROM scored WHERE path = ? AND engine <> ?"
            found = (self._db.execute(query, (path, engine)).fetchone() for path in paths)
            return sorted({row[0] for row in found if row})

    def note_table(self, root: str, paths: Iterable[str]) -> None:
        """Remember the rows of the table that was written, and what their paths are relative to."""
        with self._usage_errors():
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM in_table")
            self._db.executemany("INSERT INTO in_table (path) VALUES (?)", ((path,) for path in paths))
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('root', ?)", (root,))
            self._db.execute("COMMIT")

    def count(self) -> int:
        """Number of rows."""
        with self._usage_errors():
            return int(self._db.execute("SELECT count(*) FROM scored").fetchone()[0])

    def note_made(self, what: str) -> None:
        """Remember that this command made something: the hash of a table, or a folder."""
        with self._usage_errors():
            self._db.execute("INSERT OR IGNORE INTO made VALUES (?)", (what,))

    def has_made(self, what: str) -> bool:
        with self._usage_errors():
            return bool(self._db.execute("SELECT 1 FROM made WHERE what = ?", (what,)).fetchone())

    def close(self) -> None:
        """Close the journal; remove it if a later run could use nothing of it."""
        with self._usage_errors():
            try:
                query = "SELECT EXISTS (SELECT 1 FROM scored WHERE NOT is_error) OR EXISTS (SELECT 1 FROM made)"
                is_useful = self._db.execute(query).fetchone()[0]
            finally:
                self._db.close()
            if not is_useful:
                self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextmanager
    def _usage_errors(self) -> Iterator[None]:
        """Turn whatever a database or its content can raise into a UsageError."""
        try:
            yield
        except (sqlite3.DatabaseError, LookupError, ValueError, TypeError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            if isinstance(error, sqlite3.OperationalError | OSError):
                raise UsageError(
                    f"{self.path}: cannot be written ({reason}); fix that and run the command again"
                ) from error
            raise UsageError(f"{self.path}: not a journal ({reason}); add --fresh to start over") from error


def _parse(text: str) -> Row:
    fields = json.loads(text)
    for name in ("probabilities", "warnings", "uids"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    return Row(**fields)
