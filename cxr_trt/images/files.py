"""Finding the files to score, and the name under which each appears in the table."""

import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.images import HEAD_BYTES, image_format

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".bmp", ".webp"})
HEATMAPS = "heat maps of cxr-trt"
_HEATMAP_NAME = re.compile(r"\d+-[^.]+\.(png|jpg)")
_NAMES_WITHOUT_MARK = frozenset(FINDINGS)  # heat maps of earlier versions have no mark, and are of these findings
_MARK_TEXT = b"tEXtSoftware\0cxr-trt heat map"
HEATMAP_MARK = struct.pack(">I", len(_MARK_TEXT) - 4) + _MARK_TEXT + struct.pack(">I", zlib.crc32(_MARK_TEXT))
"""A chunk of text (PNG specification, 11.3.4) that every heat map has right after the header of the file."""
PNG_HEADER_BYTES = 33  # signature and IHDR
HEATMAP_HEAD_BYTES = PNG_HEADER_BYTES + len(HEATMAP_MARK)
_JPEG_COMMENT = b"cxr-trt heat map"
JPEG_MARK = b"\xff\xfe" + struct.pack(">H", len(_JPEG_COMMENT) + 2) + _JPEG_COMMENT
"""A comment (ITU-T T.81, B.2.4.5) that every heat map in JPEG has right after the start of the file."""


@dataclass(frozen=True)
class Source:
    r"""A file, and its unique name: the path relative to the folder that was given, with slashes; else the whole path.

    Bytes in the name that are not UTF-8 are written like \xff, and backslashes are therefore doubled.

    read: how to read a file that is in object storage; it raises ImageError, or StorageError if the store is gone.
    url: where it is there.
    """

    path: Path
    name: str
    read: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    url: str | None = None


@dataclass(frozen=True)
class Selection:
    """Files to score, in order; `skipped` counts what is left out, by kind, such as ".txt files" or "links to folders".

    A folder that cannot be listed is one of the sources, so that it gets an error row. `root` is the folder that names
    are relative to: joined with a name, it gives the file.
    """

    sources: tuple[Source, ...]
    skipped: Mapping[str, int]
    root: str

    def listed(self, names: Collection[str]) -> "Selection":
        """Only the files that a list names: by their name here, by their file name, or by it without image suffix.

        A name that a file has is not taken for one of another suffix. The result may be empty.
        """
        own = {name for source in self.sources for name in (source.name, PurePath(source.name).name)}
        stems = {file_stem(name) for name in names if name not in own}
        wanted = own.intersection(names)
        kept = [
            source
            for source in self.sources
            if not wanted.isdisjoint((source.name, PurePath(source.name).name)) or file_stem(source.name) in stems
        ]
        return replace(self, sources=tuple(kept))

    def relative_to(self, root: str) -> "Selection":
        """The same files with names relative to another folder; files outside it have their whole path as a name."""
        names = (_name(os.path.abspath(source.path), root) for source in self.sources)  # noqa: PTH100 - keeps links
        sources = tuple(Source(source.path, name) for source, name in zip(self.sources, names, strict=True))
        return replace(self, sources=sources, root=root)


def find_files(arguments: str | Path | Iterable[str | Path], *, exclude: Sequence[str] = ()) -> Selection:
    """Find the X-rays in folders, recursively, and the files that are named themselves.

    In a folder, a file is an image if it has the right suffix or starts with the signature of an image format. Hidden
    files are skipped, and symbolic links to folders are not followed. Names are relative to the folder, or to the
    deepest common folder of several arguments; files outside it have their whole path as a name.

    Args:
        arguments: the folders and files.
        exclude: patterns such as `*_lat.png` or `old/*` of names and file names to leave out.

    Raises:
        UsageError: an argument does not exist, or there is nothing to score.
    """
    paths = [Path(a) for a in ([arguments] if isinstance(arguments, str | Path) else arguments)]
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a folder is locked
            raise UsageError(f"{path}: no such file or folder")
    files: list[Path] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        for file in _walk(path, skipped) if path.is_dir() else [path]:
            if file == path or (_looks_like_image(file) and not is_heatmap(file)):
                files.append(file)
            elif is_heatmap(file):
                skipped[HEATMAPS] += 1
            else:
                skipped[kind_of(file)] += 1
    skipped = +skipped
    if not files:
        places = ", ".join(map(str, paths))
        others = f", only {counted(skipped)}" if skipped else ""
        raise UsageError(f"{places}: no DICOM, PNG, JPEG or TIFF file{others}; name another folder")
    absolute = [os.path.abspath(path if path.is_dir() else path.parent) for path in paths]  # noqa: PTH100 - keeps links
    root = _common_folder(absolute)
    unique = {os.path.abspath(file): file for file in files}  # noqa: PTH100
    sources = [Source(file, _name(whole, root)) for whole, file in unique.items()]
    kept = [source for source in sources if not matches(source.name, exclude)]
    if len(kept) < len(sources):
        skipped["files of --exclude"] = len(sources) - len(kept)
    if not kept:
        raise UsageError(f"{', '.join(map(str, paths))}: --exclude leaves no file; leave one of its patterns out")
    return Selection(tuple(kept), dict(skipped), root)


def _common_folder(folders: Sequence[str]) -> str:
    try:
        return os.path.commonpath(folders)
    except ValueError:  # two drives of Windows
        return os.path.abspath(os.sep)  # noqa: PTH100


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern of --exclude fits a name, or the file name at its end."""
    return any(fnmatch(name, pattern) or fnmatch(PurePath(name).name, pattern) for pattern in patterns)


def file_stem(name: str) -> str:
    """The file name in a path of a table, without the suffix of an image."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def counted(kinds: Mapping[str, int]) -> str:
    """Kinds and their numbers for a message, the most frequent first: ".txt files (12), links to folders (1)"."""
    return ", ".join(f"{kind} ({number})" for kind, number in sorted(kinds.items(), key=lambda item: -item[1]))


def kind_of(file: PurePath) -> str:
    """What a file is counted as that is left out."""
    if file.name.startswith("."):
        return "hidden files"
    return f"{file.suffix.lower()} files" if file.suffix else "files without suffix"


def _walk(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """All files, and the folders that cannot be listed; what is not looked into is counted."""
    locked: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: locked.append(Path(error.filename))):
        skipped["links to folders"] += sum(Path(parent, name).is_symlink() for name in folders)
        skipped["hidden folders"] += sum(name.startswith(".") for name in folders)
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


def is_heatmap(file: Path) -> bool:
    """Whether a file is a picture that `cxr_trt.results.heatmaps` made, by its name and its mark."""
    if not is_heatmap_name(file):
        return False
    try:
        with file.open("rb") as stream:
            return marked_as_heatmap(file, stream.read(HEATMAP_HEAD_BYTES))
    except OSError:
        return file.stem.split("-", 1)[1] in _NAMES_WITHOUT_MARK


def is_heatmap_name(file: PurePath) -> bool:
    """Whether heat maps have such names."""
    return _HEATMAP_NAME.fullmatch(file.name) is not None


def marked_as_heatmap(file: PurePath, head: bytes) -> bool:
    """Whether a file with such a name, which starts with `head`, is a heat map."""
    is_of_earlier_version = file.stem.split("-", 1)[1] in _NAMES_WITHOUT_MARK
    return is_of_earlier_version or head.endswith(HEATMAP_MARK) or head[2:].startswith(JPEG_MARK)


def _name(file: str, root: str) -> str:
    """The name of a file, given by its whole path, which it keeps if no folder is common to all."""
    path = PurePath(file)
    below = path.is_relative_to(root) and root != path.anchor
    return escaped_name((path.relative_to(root) if below else path).as_posix())


def escaped_name(name: str) -> str:
    """A name as `Source` has it."""
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
