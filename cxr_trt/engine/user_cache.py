"""Files in the user's cache folder: what takes long to make again, and may be lost at any time."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Where they are: `~/.cache/cxr-trt` on Linux, if XDG_CACHE_HOME does not say otherwise."""
    return user_cache_path("cxr-trt")


def read_cached(path: Path) -> bytes:
    """The content of a file, or nothing if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_cached(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises OSError; nothing depends on the file."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
