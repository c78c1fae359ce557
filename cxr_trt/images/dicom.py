"""Decoding DICOM radiographs with pydicom: from stored values to what a display would show.

The steps are in the standard's order (PS3.3 C.11, PS3.4 N.2): stored values, modality LUT or rescale, VOI LUT or
window, and finally MONOCHROME1 is inverted, once. Black and white are the ends of the output range of the VOI LUT or
window.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
)

from cxr_trt.errors import ImageError
from cxr_trt.images.checks import code, tag_doubts
from cxr_trt.images.headers import jpeg_header
from cxr_trt.images.image import Image, check_size

DECODER_PLUGINS: dict[UID, str] = {
    **dict.fromkeys(JPEGTransferSyntaxes + JPEGLSTransferSyntaxes, "gdcm"),
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pylibjpeg"),
    **dict.fromkeys(RLETransferSyntaxes, "pylibjpeg"),
}
"""The decoder for each compressed transfer syntax: only one, so that pixels do not depend on what else is installed."""

LOOKUP_ROWS = 64  # rows that are looked up at a time, so that their indices stay in the cache

_LOCK = threading.Lock()


def decode_dicom(data: bytes) -> Image:
    """Decode a DICOM file of one frame: grey, RGB or YBR.

    Pixels with the Pixel Padding Value (C.7.5.1.1.2) become black. Without VOI LUT and window, the smallest value
    becomes black and the largest white. Colour becomes BT.601 luma.

    Args:
        data: the whole file, with preamble.

    Raises:
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
    dataset = dcmread(io.BytesIO(data))
    stored, photometric = _stored_values(dataset)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        pixels, notes = _monochrome(stored, photometric, dataset)
    elif photometric == "RGB":
        pixels, notes = _luma(stored, dataset.BitsStored)
    else:
        raise ImageError(
            f"the Photometric Interpretation {code(photometric)} is not supported; export the image as grey"
        )
    return Image(pixels, "DICOM", (*notes, *tag_doubts(dataset)))


def _stored_values(dataset: Dataset) -> tuple[npt.NDArray[Any], str]:
    """Decode Pixel Data to integers [H, W] or [H, W, 3] and their Photometric Interpretation; YBR becomes RGB."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ImageError("the DICOM file holds floating-point pixels; export it with integer pixels")
    if "PixelData" not in dataset:
        raise ImageError(
            "the DICOM file holds no pixel data: it is truncated or no image; copy it again or leave it out"
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"the DICOM file holds {frames} frames; extract one")

    check_size(dataset.Columns, dataset.Rows)

    syntax = dataset.file_meta.TransferSyntaxUID
    if DECODER_PLUGINS.get(syntax) == "gdcm":
        _check_jpeg(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        syntax_name = syntax.name if syntax.is_valid else "(no UID)"
        raise ImageError(f"the transfer syntax {syntax_name} is not supported; decompress the file") from error
    try:
        values, properties = _as_array(decoder, dataset, DECODER_PLUGINS.get(syntax, ""))
    except (RuntimeError, ValueError, AttributeError) as error:
        raise ImageError(
            f"the pixel data ({syntax.name}) are damaged, cut off or in a variant that is not supported; "
            "copy the file again or decompress it"
        ) from error

    expected = (dataset.Rows, dataset.Columns, 3)[: 2 if dataset.SamplesPerPixel == 1 else 3]
    if values.shape != expected:
        raise ImageError(f"the DICOM file holds an array of {values.shape}, not one frame of {expected}; extract one")
    return values, str(properties["photometric_interpretation"])


def _as_array(decoder: Decoder, dataset: Dataset, plugin: str) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode Pixel Data. RLE data that are too long make pylibjpeg's decoder panic, but not pydicom's own."""
    try:
        return decoder.as_array(dataset, decoding_plugin=plugin)
    except BaseException as error:  # a panic of the Rust decoder is not an Exception
        if type(error).__name__ != "PanicException":
            raise
    return decoder.as_array(dataset, decoding_plugin="pydicom")


def _check_jpeg(dataset: Dataset) -> None:
    """Refuse data that would make GDCM abort: JPEG headers that contradict the data set, or make libjpeg warn."""
    for frame in generate_frames(dataset.PixelData, number_of_frames=1):
        header = jpeg_header(frame)
        if (header.width, header.height, header.samples) != (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel):
            raise ImageError("the JPEG data differ from the DICOM header in size; export the image again")
        if header.bits > dataset.BitsAllocated:
            raise ImageError("the JPEG data have more bits than the DICOM header says; export the image again")
        if header.is_doubtful:
            raise ImageError("the JPEG data have an unknown JFIF version or Adobe transform; export the image again")


def _monochrome(
    stored: npt.NDArray[Any], photometric: str, dataset: Dataset
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Map stored values [H, W] to display grey.

    A pixel's grey depends only on its stored value. So every possible value of 8 or 16 bits is mapped once, and the
    pixels are looked up: the result is the same as mapping each pixel, in a tenth of the time.
    """
    stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))
    bits = 8 * stored.itemsize
    if bits > 16:
        return _greys(stored, lambda: np.ones(stored.shape, bool), photometric, dataset)
    index = stored.view(f"u{stored.itemsize}")
    values = np.arange(2**bits, dtype=index.dtype).view(stored.dtype)

    def occurring() -> npt.NDArray[np.bool_]:
        found = np.zeros(2**bits, bool)
        found[index] = True
        return found

    greys, notes = _greys(values, occurring, photometric, dataset)
    pixels = np.empty(stored.shape, np.float32)
    for top in range(0, len(pixels), LOOKUP_ROWS):
        rows = slice(top, top + LOOKUP_ROWS)
        np.take(greys, index[rows], out=pixels[rows], mode="clip")  # mode "raise" would copy
    return pixels, notes


def _greys(
    stored: npt.NDArray[Any], occurring: Callable[[], npt.NDArray[np.bool_]], photometric: str, dataset: Dataset
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Map stored values of any shape to display grey; `occurring` tells which of them occur in the picture."""
    notes = []
    padding = _padding(stored, dataset)
    if dataset.get("ModalityLUTSequence"):
        values, _, _ = _lookup(stored, dataset.ModalityLUTSequence[0], dataset)
    else:
        values = apply_modality_lut(stored, dataset)

    if dataset.get("VOILUTSequence"):
        grey, largest, white = _lookup(values, dataset.VOILUTSequence[0], dataset)
        black: float = 0
        if largest <= white // 2:
            notes.append(f"the VOI LUT reaches only {largest} of {white}, the picture may be too dark")
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        if np.min(dataset.WindowWidth) <= 0:
            raise ImageError("the Window Width is not positive; export the image again")
        function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
        if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):  # C.11.2.1.3
            raise ImageError(f"the VOI LUT Function {code(function)} is unknown; export the image again")
        # The window maps -inf and inf to the ends of its output range (C.11.2.1.2).
        black, white = apply_windowing(np.array([-np.inf, np.inf]), dataset)
        grey = apply_windowing(values, dataset)
    else:
        notes.append("no VOI LUT or window, stretched from the smallest to the largest value")
        grey = values.astype(np.float64)
        shown = grey[occurring() & ~padding]
        black, white = (shown.min(), shown.max()) if shown.size else (0, 0)

    scale = 255 / (white - black) if white != black else 0
    pixels = ((grey - black) * scale).astype(np.float32)
    if photometric == "MONOCHROME1":  # C.7.6.3.1.2
        pixels = 255 - pixels
    pixels[padding] = 0

    shape = dataset.get("PresentationLUTShape")  # C.11.6: it must agree with the Photometric Interpretation
    if (photometric, shape) in {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}:
        notes.append(f"Presentation LUT Shape {shape} contradicts {photometric}, which was followed")
    return np.clip(pixels, 0, 255), notes


def _padding(stored: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which stored values are padding: Pixel Padding Value, or the range from it to Pixel Padding Range Limit."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    inside: npt.NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return inside


def _lookup(values: npt.NDArray[Any], item: Dataset, dataset: Dataset) -> tuple[npt.NDArray[Any], int, int]:
    """Map values through an item of a Modality LUT Sequence (C.11.1.1) or VOI LUT Sequence (C.11.2.1.1).

    pydicom's own `apply_voi` wraps around in LUTs with more than 256 entries of 8 bits, which many detectors write.

    Returns:
        The mapped values, the largest entry, and the largest value that an entry's bits can hold.
    """
    entries, first, bits = item.LUTDescriptor
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        is_packed = bits == 8 and len(data) < 2 * entries  # one byte per entry
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, "u1" if is_packed else f"{order}u2")
    table = np.asarray(data)[:entries]
    index = np.rint(values).astype(np.int64) - first
    return table[np.clip(index, 0, entries - 1)], int(table.max()), 2**bits - 1


def _luma(samples: npt.NDArray[Any], bits: int) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Convert RGB samples [H, W, 3] with `bits` bits to BT.601 luma."""
    if samples.dtype.kind != "u" or samples.dtype.itemsize > 2:
        raise ImageError(f"the DICOM file holds colour of type {samples.dtype.name}; export it as grey")
    native = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
    grey = cv2.cvtColor(native, cv2.COLOR_RGB2GRAY)
    scaled = grey.astype(np.float32) / np.float32((2**bits - 1) / 255)
    return np.clip(scaled, 0, 255), ["colour image, converted to grey"]
