"""Where results go: whether a path can be written is found out before the work, not after it."""

import os
from pathlib import Path

from cxr_trt.errors import UsageError


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError if `path` exists and may not be replaced, or if its folder cannot be written."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; add --overwrite to replace it, or choose another path")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raise UsageError if files cannot be made in `folder`; make it if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror}); choose another path") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: not writable; choose another path")
