"""Writing outputs: paths are checked before the work, and files appear whole or not at all."""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cxr_trt.errors import UsageError


def check_output(path: Path, suffixes: Collection[str], *, overwrite: bool) -> None:
    """Raise UsageError if the suffix is none of these, the file exists and must not be replaced, or is not writable."""
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
    """Make the folder if it does not exist. Raise UsageError if no file can be created in it."""
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
def locked(path: Path, protected: Path | None = None) -> Iterator[None]:
    """Hold a lock that only one process can hold; the system releases it however the process ends.

    Args:
        path: the lock file, which stays afterwards.
        protected: what the lock protects, for the message; by default the folder of the lock file.

    Raises:
        UsageError: another process holds the lock, or the lock file cannot be written.
    """
    check_folder(path.parent)  # a folder that is missing or not writable would look like a lock that is held
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        where = protected or path.parent
        raise UsageError(f"{where}: another process is writing there; wait for it or stop it") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error}); choose another path") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    if not path.is_file():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


@contextmanager
def replacing(path: Path, partial: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` if the body succeeds and is removed if it fails.

    Args:
        path: the file to replace.
        partial: the temporary path; by default beside `path`, with the number of this process in its name. A killed
            process leaves its file behind. Give a fixed name where only one process can be writing, so that the next
            run uses the file again.

    Raises:
        UsageError: the body raised an OSError, such as a full disk.
    """
    partial = partial or path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())  # so that a power failure cannot leave the name with an empty file
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        partial.unlink(missing_ok=True)
