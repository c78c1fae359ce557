"""DICOM radiographs to what a display would show: data set, cells, display."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from cxr_trt.errors import ImageError
from cxr_trt.images.dicom_attributes import code
from cxr_trt.images.dicom_cells import Cells, bit_layout
from cxr_trt.images.dicom_checks import tag_doubts
from cxr_trt.images.dicom_display import display_picture, stored_values
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
    elif photometric in ("RGB", "YBR_FULL"):
        pixels = _luma(values, photometric, dataset, notes)
        notes.append("colour image, converted to grey")
    else:
        raise ImageError(
            f"the Photometric Interpretation {code(photometric)} is not supported; export the image as grey"
        )
    return Image(pixels, "DICOM", (*notes, *tag_doubts(dataset)))


def _luma(samples: npt.NDArray[Any], photometric: str, dataset: Dataset, notes: list[str]) -> npt.NDArray[np.float32]:
    """RGB or YBR_FULL [H, W, 3] to BT.601 luma, which is the Y of YBR_FULL itself (PS3.3 C.7.6.3.1.2)."""
    if samples.itemsize > 2:
        raise ImageError(f"the DICOM file holds colour of type {samples.dtype.name}; export it as grey")
    layout = replace(bit_layout(dataset, 8 * samples.itemsize, notes), signed=False)
    cells = Cells(samples[..., :1] if photometric == "YBR_FULL" else samples, layout, notes)
    stored = cells.picture(stored_values(cells, dataset).astype(np.float32)).astype(samples.dtype)
    luma = stored[..., 0] if photometric == "YBR_FULL" else cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
    pixels: npt.NDArray[np.float32] = np.clip(luma / np.float32((2**layout.stored - 1) / 255), 0, 255)
    return pixels
