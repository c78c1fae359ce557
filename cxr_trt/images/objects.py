"""Finding the X-rays in object storage, and reading them: in this process, for decoders that know no network."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from cxr_trt.errors import ImageError, StorageError, UsageError
from cxr_trt.images import HEAD_BYTES, image_format
from cxr_trt.images.files import (
    HEATMAP_HEAD_BYTES,
    HEATMAPS,
    IMAGE_SUFFIXES,
    Selection,
    Source,
    counted,
    escaped_name,
    is_heatmap_name,
    kind_of,
    marked_as_heatmap,
    matches,
)
from cxr_trt.images.load import MAX_FILE_BYTES
from cxr_trt.storage import Listed, Url, check_bucket, listed

READING_THREADS = 16


def find_objects(places: Sequence[Url], *, exclude: Sequence[str] = ()) -> tuple[Selection, list[int]]:
    """Find X-rays as `cxr_trt.images.files.find_files` does. Names are relative to the place.

    Returns:
        The objects, and their sizes in bytes.

    Raises:
        UsageError: there is no such bucket, nothing below the place, or several places.
        StorageError: the store does not answer.
    """
    if len(places) > 1:
        raise UsageError(f"{places[1]}: several places in object storage; name one that they have in common")
    (place,) = places
    check_bucket(place)
    if place.is_file():
        root, found = place.parent, [Listed(place, len(place.read()))]
    else:
        root, found = place, listed(place)
    names = [str(one.url)[len(str(root)) + 1 :] for one in found]
    order = sorted(range(len(found)), key=lambda i: _in_order(names[i]))
    with ThreadPoolExecutor(READING_THREADS) as threads:
        kinds = threads.map(_what_is_left_out, (found[i].url for i in order), (names[i] for i in order))
        skipped = Counter[str]()
        sources, sizes = [], []
        for i, kind in zip(order, kinds, strict=True):
            kind = kind if found[i].url != place else None
            if kind is None and matches(names[i], exclude):
                kind = "files of --exclude"
            if kind is None:
                sources.append(object_source(found[i].url, escaped_name(names[i])))
                sizes.append(found[i].size)
            else:
                skipped[kind] += 1
    if not sources:
        others = f", only {counted(skipped)}" if skipped else ""
        raise UsageError(f"{place}: no DICOM, PNG, JPEG or TIFF file{others}; name another place")
    return Selection(tuple(sources), dict(skipped), str(root)), sizes


def object_source(url: Url, name: str) -> Source:
    """An object as a file to score; its path is for messages only."""
    return Source(Path(str(url)), name, partial(read_object, url), str(url))


def read_object(url: Url) -> bytes:
    """The content of an object.

    Raises:
        ImageError: this object cannot be read, though the store answers.
        StorageError: the store does not answer.
    """
    try:
        data = url.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ImageError("the object is not there any more; look where it went, or list the files again") from error
    except StorageError as error:
        check_bucket(url)
        raise ImageError(str(error).partition(": ")[2].replace("the same command goes on", "score it again")) from error
    if len(data) > MAX_FILE_BYTES:
        raise ImageError("the object has more than 1 GiB; export it with at most 1 GiB")
    return data


def _in_order(name: str) -> list[tuple[bool, str]]:
    """As a folder is listed: its files, and then those of the folders in it."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]


def _what_is_left_out(url: Url, name: str) -> str | None:
    """The kind of an object that is not scored; a head is read only where the name does not tell."""
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts[:-1]):
        return "files in hidden folders"
    if path.name.startswith("."):
        return kind_of(path)
    if is_heatmap_name(path) and marked_as_heatmap(path, url.read(HEATMAP_HEAD_BYTES)):
        return HEATMAPS
    if path.suffix.lower() in IMAGE_SUFFIXES or (not path.suffix and image_format(url.read(HEAD_BYTES))):
        return None
    return kind_of(path)
