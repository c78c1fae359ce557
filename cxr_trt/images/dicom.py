"""DICOM radiographs to what a display would show: data set, cells, display."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError
from cxr_trt.images.dicom_attributes import code
from cxr_trt.images.dicom_cells import Cells, bit_layout
from cxr_trt.images.dicom_checks import tag_doubts
from cxr_trt.images.dicom_display import display_picture
from cxr_trt.images.dicom_pixels import decode_cells, read_data_set
from cxr_trt.images.image import Image

_LOCK = threading.Lock()


def decode_dicom(data: bytes) -> Image:
    """Decode a DICOM file of one frame: grey, RGB or YBR. Colour becomes BT.601 luma.

    Args:
        data: the whole file, with or without preamble.

    Raises:
        NoImageError: an object of a kind that holds no image, or a result of cxr-trt.
        ImageError: the file is truncated or damaged, or holds no image, several frames or floating-point values.
    """
    try:
        with no_python_warnings():
            return _decode(data)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a damaged element can raise anything; the text may quote it, so only the type is shown
        raise ImageError(f"the DICOM file is damaged ({type(error).__name__}); export it again") from error


@contextmanager
def no_python_warnings() -> Iterator[None]:
    """Suppress pydicom's warnings, which would otherwise become errors under `python -W error`.

    `catch_warnings` is not thread-safe, hence the lock. It costs no time: pydicom and its decoders hold the GIL anyway.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode(data: bytes) -> Image:
    dataset, syntax, notes = read_data_set(data)
    values, photometric = decode_cells(dataset, syntax, notes)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        cells = Cells(values, bit_layout(dataset, 8 * values.itemsize, notes), notes)
        pixels = display_picture(cells, photometric, dataset)
    elif photometric == "RGB":
        pixels = _luma(values, bit_layout(dataset, 8 * values.itemsize, notes).stored)
        notes.append("colour image, converted to grey")
    else:
        raise ImageError(
            f"the Photometric Interpretation {code(photometric)} is not supported; export the image as grey"
        )
    return Image(pixels, "DICOM", (*notes, *tag_doubts(dataset)))


def _luma(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[np.float32]:
    """RGB [H, W, 3] of that many bits to BT.601 luma."""
    if samples.itemsize > 2:
        raise ImageError(f"the DICOM file holds colour of type {samples.dtype.name}; export it as grey")
    scaled = cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32((2**bits - 1) / 255)
    pixels: npt.NDArray[np.float32] = np.clip(scaled, 0, 255)
    return pixels
