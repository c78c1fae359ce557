"""Decoding PNG and JPEG files with OpenCV."""

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError
from cxr_trt.images.checks import is_coloured
from cxr_trt.images.headers import PngHeader, jpeg_header, png_header
from cxr_trt.images.image import Image, check_size

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DETECTOR_BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of the detectors whose values are stored in 16-bit files."""


def decode_raster(data: bytes, file_format: str) -> Image:
    """Decode a PNG or JPEG file of any colour type.

    The EXIF orientation is applied, colour becomes BT.601 luma, and transparency is ignored. 8-bit values are used
    unchanged; the values of a 16-bit file are scaled by the smallest of `DETECTOR_BIT_DEPTHS` that holds them all.

    Args:
        data: the whole file.
        file_format: "PNG" or "JPEG".

    Raises:
        ImageError: the file is truncated, damaged or too large.
    """
    header = png_header(data) if file_format == "PNG" else jpeg_header(data)
    check_size(header.width, header.height)

    warnings = []
    samples = _imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if samples is None:
        raise ImageError(f"the {file_format} file is truncated or damaged; copy it again")
    if isinstance(header, PngHeader) and header.has_alpha and _is_transparent(data):
        warnings.append("transparency ignored")

    bits = 8
    if samples.dtype == np.uint16:
        largest = int(samples.max())
        bits = next(depth for depth in DETECTOR_BIT_DEPTHS if largest < 2**depth)
        if bits != 16:
            warnings.append(f"16-bit file with {bits}-bit values, scaled by {2**bits - 1}")

    if samples.ndim == 3 and is_coloured(samples):
        warnings.append("colour image, converted to grey")
    grey = cv2.cvtColor(samples, cv2.COLOR_BGR2GRAY) if samples.ndim == 3 else samples
    pixels = grey.astype(np.float32)
    if bits != 8:
        pixels /= np.float32((2**bits - 1) / 255)
    return Image(pixels, file_format, tuple(warnings))


def _is_transparent(data: bytes) -> bool:
    """Whether any pixel is not opaque. For a grey PNG with one transparent value, OpenCV cannot tell."""
    samples = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if samples is None or samples.ndim == 2 or samples.shape[2] != 4:
        return False
    return bool(samples[..., 3].min() < np.iinfo(samples.dtype).max)


def _imdecode(data: bytes, flags: int) -> Samples | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)  # type: ignore[return-value]
    except cv2.error:
        return None
