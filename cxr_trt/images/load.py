"""Reading files, and loading files as the network's input."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError, UsageError
from cxr_trt.images import decode
from cxr_trt.images.preprocess import Fit, preprocess
from cxr_trt.views import Size

MAX_FILE_BYTES = 1 << 30


def read_file(path: Path) -> bytes:
    """Read a regular file of at most 1 GiB. Raises ImageError."""
    try:
        if path.is_dir():
            raise ImageError("the folder cannot be listed; check its permissions")
        if not path.is_file():
            raise ImageError("not a regular file, or a link to nothing; copy the image itself")
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise ImageError(f"the file has {size / 2**30:.1f} GiB; export it with at most 1 GiB")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror}") from error


def load_images(paths: Iterable[Path], size: Size | int, fit: Fit = "stretch") -> npt.NDArray[np.uint8]:
    """Read and preprocess files to uint8 [N, 1, height, width]; a number as `size` stands for a square.

    Raises:
        UsageError: a file cannot be read; the error names it.
    """
    images = []
    for path in paths:
        try:
            images.append(preprocess(decode(read_file(path)).pixels, size, fit))
        except ImageError as error:
            raise UsageError(f"{path}: {error}") from error
    return np.stack(images)[:, None]
