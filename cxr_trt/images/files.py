"""Finding the files to score, and the name under which each appears in the table."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cxr_trt.errors import UsageError
from cxr_trt.images import HEAD_BYTES, image_format

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom"})


@dataclass(frozen=True)
class Source:
    r"""A file, and its unique name: the path relative to the folder that was given, with slashes.

    Bytes in the name that are not UTF-8 are written like \xff, and backslashes are therefore doubled.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Selection:
    """Files to score, in order. `skipped` counts the files that are not images, neither by suffix nor by content.

    A folder that cannot be listed is one of the sources, so that it gets an error row.
    """

    sources: tuple[Source, ...]
    skipped: int


def find_files(arguments: str | Path | Iterable[str | Path]) -> Selection:
    """Find the X-rays in folders, recursively, and the files that are named themselves.

    In a folder, a file is an image if it has the right suffix (.png, .jpg, .jpeg, .dcm, .dicom) or starts with the
    signature of an image format. Hidden files are skipped, and symbolic links to folders are not followed. Names are
    relative to the folder, or to the deepest common folder of several arguments.

    Raises:
        UsageError: an argument does not exist, or there is nothing to score.
    """
    paths = [Path(a) for a in ([arguments] if isinstance(arguments, str | Path) else arguments)]
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a folder is locked
            raise UsageError(f"{path}: no such file or folder")
    files, skipped = [], 0
    for path in paths:
        for file in _walk(path) if path.is_dir() else [path]:
            if file == path or _looks_like_image(file):
                files.append(file)
            else:
                skipped += 1
    if not files:
        named_paths = ", ".join(map(str, paths))
        raise UsageError(
            f"{named_paths}: no PNG, JPEG or DICOM file there ({skipped} other files); name another folder"
        )
    absolute = [os.path.abspath(path if path.is_dir() else path.parent) for path in paths]  # noqa: PTH100 - keeps links
    root = os.path.commonpath(absolute)
    unique = {os.path.abspath(file): file for file in files}  # noqa: PTH100
    return Selection(tuple(Source(file, _name(file, root)) for file in unique.values()), skipped)


def _walk(folder: Path) -> Iterator[Path]:
    """All files, and the folders that cannot be listed."""
    locked: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: locked.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names))
    yield from locked


def _looks_like_image(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    if file.suffix.lower() in IMAGE_SUFFIXES or os.path.isdir(file):  # noqa: PTH112 - a folder that cannot be listed
        return True
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return image_format(stream.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def _name(file: Path, root: str) -> str:
    relative = Path(os.path.relpath(file, root)).as_posix().replace("\\", "\\\\")
    return os.fsencode(relative).decode("utf-8", "backslashreplace")
