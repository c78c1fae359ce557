"""Which files a command takes: from folders, from a list, without some, only the first."""

import csv
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from cxr_trt.commands.messages import say
from cxr_trt.errors import UsageError
from cxr_trt.images.files import Selection, find_files
from cxr_trt.images.objects import find_objects
from cxr_trt.storage import Location, Url
from cxr_trt.words import quantity

Command = TypeVar("Command", bound=Callable[..., Any])

NAME_COLUMNS = ("Image Index", "path", "image")  # of NIH's Data_Entry CSV, a table of scores, a table of labels


def selection_options(command: Command) -> Command:
    """Add --files-from, --exclude and --limit."""
    command = click.option("--limit", type=click.IntRange(1), help="Take only the first so many files.")(command)
    command = click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave out files like this, such as '*_lat.png' or 'old/*'."
    )(command)
    return click.option(
        "--files-from",
        type=click.Path(path_type=Path, allow_dash=True),
        help="A list of files, - for standard input: a name per line, such as NIH's test_list.txt, or a CSV such as "
        "NIH's Data_Entry. With PATHS: only the files there that it names; another image suffix does not matter.",
    )(command)


def choose_files(
    paths: Sequence[Location], files_from: Path | None, exclude: Sequence[str], limit: int | None
) -> Selection:
    """Find the files that a command was asked to take, in the file system or in object storage.

    Raises:
        UsageError: as `find_files` does; or the list cannot be read, or names no file there is.
        StorageError: the store does not answer.
    """
    return choose_sized_files(paths, files_from, exclude, limit)[0]


def choose_sized_files(
    paths: Sequence[Location], files_from: Path | None, exclude: Sequence[str], limit: int | None
) -> tuple[Selection, Sequence[int] | None]:
    """What `choose_files` finds, and the sizes in bytes as far as the store told them."""
    if not paths and files_from is None:
        raise UsageError("no files to score; name files or folders, or a list with --files-from")
    if any(isinstance(path, Url) for path in paths):
        if files_from or not all(isinstance(path, Url) for path in paths):
            raise UsageError("a place in object storage cannot be combined with other files or --files-from")
        selection, sizes = find_objects([path for path in paths if isinstance(path, Url)], exclude=exclude)
        return replace(selection, sources=selection.sources[:limit]), sizes[:limit]
    return _choose_local([path for path in paths if isinstance(path, Path)], files_from, exclude, limit), None


def _choose_local(
    paths: Sequence[Path], files_from: Path | None, exclude: Sequence[str], limit: int | None
) -> Selection:
    if files_from is None:
        selection = find_files(paths, exclude=exclude)
    else:
        names = _read_names(files_from)
        if paths:
            selection = find_files(paths, exclude=exclude).listed(names)
            if not selection.sources:
                raise UsageError(
                    f"{files_from}: names no file of {paths[0]} (its first is {names[0]!r}); name their folder"
                )
            if len(selection.sources) < len(names):
                found = quantity(len(selection.sources), "file")
                say(f"{files_from}: {quantity(len(names), 'name')}, {found} of them found", "warning")
        else:
            selection = find_files(names, exclude=exclude)
    return replace(selection, sources=selection.sources[:limit])


def _read_names(path: Path) -> list[str]:
    """The names in a list: a line each, or the column of a CSV with a header that is known."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); name a list of files") from error
    lines = [line for line in os.fsdecode(data).lstrip("\ufeff").splitlines() if line.strip()]
    header = next(csv.reader(lines[:1]), [])
    column = next((name for name in NAME_COLUMNS if name in header), None)
    names = lines if column is None else [row[column] for row in csv.DictReader(lines) if row[column]]
    if not names:
        raise UsageError(f"{path}: names no files; write a name per line")
    return list(dict.fromkeys(names))
