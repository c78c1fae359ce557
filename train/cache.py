"""Images decoded once, into a file of uint8 [N, size, size] that training maps into memory."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import UsageError
from cxr_trt.images.load import load_images
from cxr_trt.images.preprocess import PREPROCESSING
from cxr_trt.outputs import check_folder
from cxr_trt.processors import processors


def cached_images(
    paths: Sequence[Path], size: int, folder: Path, report: Callable[[int, int], None]
) -> npt.NDArray[np.uint8]:
    """Open the cache of these files, in their order; build it first if it does not exist.

    The name of the cache is a hash of the preprocessing, the size, and each file's path, length and time of change, so
    that a cache of other images is never used. A build that was interrupted starts again.

    Args:
        paths: image files.
        size: side of the images in pixels; an image takes size * size bytes on disk.
        folder: folder of the cache; created if it does not exist.
        report: called with the number of decoded images and the number of all images.

    Returns:
        uint8 [N, size, size], mapped read-only.

    Raises:
        UsageError: an image cannot be read, or the disk is full.
    """
    check_folder(folder)
    path = folder / f"{_key(paths, size)}.uint8"
    shape = (len(paths), size, size)
    if not path.exists():
        partial = path.with_suffix(".partial")
        try:
            _build(paths, size, partial, report)
            partial.replace(path)
        except OSError as error:
            raise UsageError(f"{partial}: cannot be written ({error.strerror}); choose another folder") from error
    return np.memmap(path, np.uint8, "r", shape=shape)


def _key(paths: Sequence[Path], size: int) -> str:
    lines = [f"{PREPROCESSING}\n{size}"]
    for path in paths:
        try:
            facts = path.stat()
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        lines.append(f"{path.resolve()}\t{facts.st_size}\t{facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _build(paths: Sequence[Path], size: int, target: Path, report: Callable[[int, int], None]) -> None:
    workers = processors()
    with target.open("wb") as stream, ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), 8 * workers):
            part = paths[start : start + 8 * workers]
            for image in pool.map(lambda path: load_images([path], size), part):
                stream.write(image.tobytes())
            report(start + len(part), len(paths))
