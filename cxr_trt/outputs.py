"""Where results go: whether a path can be written is found out before the work, not after it."""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cxr_trt.errors import UsageError


def check_output(path: Path, suffixes: Collection[str], *, overwrite: bool) -> None:
    """Raise UsageError if the file has another suffix, exists and may not be replaced, or cannot be written."""
    if path.suffix not in suffixes:
        raise UsageError(f"{path}: the name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; choose another path")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file; choose another path")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; add --overwrite to replace it, or choose another path")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raise UsageError if files cannot be made in `folder`; make it if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror}); choose another path") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: not writable ({error.strerror}); choose another path") from error


@contextmanager
def locked(path: Path, what: Path | None = None) -> Iterator[None]:
    """Hold a lock file for this process alone; the system lets go of it whatever way the process ends.

    Args:
        path: the lock file; it is removed at the end.
        what: what is protected, for the message; by default the folder of the file.

    Raises:
        UsageError: another process holds it.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{what or path.parent}: another process is writing there; wait for it or stop it") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the place of `path` if all went well, and is removed if not.

    What a killed process has left there stays, under a name with its number; where no other process can be writing, a
    name for `partial` makes sure that it is used again.

    Raises:
        UsageError: an OSError of the body, such as a full disk.
    """
    partial = partial or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())  # a name whose content a power failure takes would be worse than no file
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        partial.unlink(missing_ok=True)
