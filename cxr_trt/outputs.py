"""Where results go: whether a path can be written is found out before the work, not after it."""

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_trt.errors import UsageError


def check_output(path: Path, suffixes: Collection[str], *, overwrite: bool) -> None:
    """Raise UsageError if the file has another suffix, exists and may not be replaced, or cannot be written."""
    if path.suffix not in suffixes:
        raise UsageError(f"{path}: the name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; choose another path")
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
def locked(path: Path) -> Iterator[None]:
    """Hold a file for this process alone; the system lets go of it whatever way the process ends. The file stays.

    Raises:
        UsageError: another process holds it, which is named.
    """
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip()
            raise UsageError(f"{path.parent}: process {holder} is writing there; wait for it or stop it") from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the place of `path` if all went well, and is removed if not.

    Raises:
        UsageError: an OSError of the body, such as a full disk.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        partial.unlink(missing_ok=True)
