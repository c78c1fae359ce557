"""The table of `cxr-trt score` and the journal beside it: which rows are kept, and when a table may be replaced."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from cxr_trt.commands.messages import say
from cxr_trt.commands.run import Run
from cxr_trt.errors import UsageError
from cxr_trt.hashing import hash_file
from cxr_trt.images.files import Selection
from cxr_trt.outputs import check_output, locked
from cxr_trt.score.engine import Engine
from cxr_trt.score.journal import Journal
from cxr_trt.storage import Location, Url, check_writable, parse_location, writing
from cxr_trt.tables.rows import Row
from cxr_trt.tables.writing import ENGINE_KEY, TABLE_SUFFIXES, check_xlsx, write_table
from cxr_trt.words import quantity


def check_table_options(output: Location | None, *, append: bool, bom: bool) -> None:
    """Raise UsageError or BackendError, before the work, for what this table cannot be."""
    if append and not output:
        raise UsageError("--append adds to a table; name it with -o")
    if bom and (not output or output.suffix != ".csv"):
        raise UsageError("--bom is about a CSV file; name one with -o scores.csv")
    if output and output.suffix == ".xlsx":
        check_xlsx()


def check_table(output: Location, *, overwrite: bool) -> None:
    """Raise UsageError or StorageError unless a table can be written there: see `cxr_trt.outputs.check_output`."""
    if isinstance(output, Path):
        check_output(output, TABLE_SUFFIXES, overwrite=overwrite)
        return
    if output.suffix not in TABLE_SUFFIXES:
        raise UsageError(f"{output}: the name must end in {' or '.join(TABLE_SUFFIXES)}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists; add --overwrite to replace it, or choose another place")
    check_writable(output.parent)


@contextmanager
def open_journal(output: Location, *, fresh: bool, overwrite: bool) -> Iterator[Journal]:
    """Open the journal of a table, for this process alone. A table that this command made may be replaced.

    The journal of a table in object storage is in the user's cache folder: it needs a file system.
    """
    check_table(output, overwrite=True)
    if isinstance(output, Path):
        beside = output
    else:
        folder = user_cache_path("cxr-trt") / "journals" / hashlib.sha256(str(output).encode()).hexdigest()[:16]
        beside = folder / output.name
    lock = beside.with_name(f".{beside.name}.lock")
    with (
        locked(lock, beside if beside == output else None),
        Journal(beside.with_name(f"{beside.name}.journal"), fresh=fresh) as journal,
    ):
        if output.exists() and not journal.has_made(_hash(output)):
            check_table(output, overwrite=overwrite)
        yield journal


def _hash(table: Location) -> str:
    if isinstance(table, Path):
        return hash_file(table)
    return hashlib.sha256(table.read()).hexdigest()


def beside_known_rows(
    journal: Journal, selection: Selection, output: Location, *, append: bool, overwrite: bool
) -> Selection:
    """The files with names that fit the rows that the table keeps. Raises UsageError if it would lose rows unasked."""
    root = journal.fact("root")
    if root is None or overwrite:
        return selection
    is_stored = isinstance(parse_location(root), Url)
    if append and root != selection.root and (is_stored or selection.sources[0].url):
        raise UsageError(f"--append: the table has files of {root}; name that place, or choose another -o")
    if append:
        return selection if is_stored else selection.relative_to(root)
    if lost := (_lost_objects if is_stored else _lost_files)(journal, selection, root):
        raise UsageError(
            f"{output} has the rows of {quantity(len(lost), 'file')} not named now, such as {lost[0]}; add "
            "--append to keep them, or --overwrite to leave them out"
        )
    return selection


def _lost_objects(journal: Journal, selection: Selection, root: str) -> list[Location]:
    """Objects that are still there and have rows, but are not named now."""
    named = {source.name for source in selection.sources} if selection.root == root else set()
    places = (parse_location(f"{root}/{path}") for path in journal.table_paths() if path not in named)
    return [place for place in places if place.exists()]


def _lost_files(journal: Journal, selection: Selection, root: str) -> list[Location]:
    """Files that are still there and have rows, but are not named now."""
    named = {Path(selection.root, source.name) for source in selection.sources}
    known = (Path(root, path) for path in journal.table_paths())
    return [path for path in known if path not in named and path.exists()]


def check_one_engine(journal: Journal, engine: Engine) -> None:
    """Raise UsageError if the table that is added to has rows of another engine."""
    if others := journal.other_engines(journal.table_paths(), engine.fingerprint):
        raise UsageError(
            f"--append: the table has rows of another engine ({others[0]}); name that one, or choose another -o"
        )


@contextmanager
def reporting_kept_rows(journal: Journal | None) -> Iterator[None]:
    """If the run ends early, say that nothing is lost."""
    try:
        yield
    except BaseException:
        if journal:
            kept = f"the rows of {quantity(journal.count(), 'file')} are kept in {journal.path}"
            say(f"{kept}; the same command again continues from there")
        raise


def write_kept_rows(journal: Journal, run: Run, engine: Engine, output: Location, *, append: bool, bom: bool) -> None:
    """Write the table from the journal, in the order of the files; it appears whole or not at all."""
    with writing(output, f".{output.name}.partial") as partial:
        paths = list(dict.fromkeys((*(journal.table_paths() if append else ()), *run.paths)))
        rows: Iterable[Row] = journal.rows(paths)
        if uids := run.uids:
            rows = map(uids.kept_in, rows)
        write_table(
            partial,
            output.suffix,
            rows,
            engine.spec,
            engine.calibration,
            root=run.root,
            bom=bom,
            uids=uids is not None,
            facts={ENGINE_KEY: engine.manifest.describe_model()},
        )
        journal.note_table(run.root, paths)
        journal.note_made(hash_file(partial))
