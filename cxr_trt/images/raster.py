"""PNG, JPEG and TIFF, through OpenCV."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError
from cxr_trt.images.checks import is_coloured
from cxr_trt.images.headers import JpegHeader, PngHeader, TiffHeader, jpeg_header, png_header, tiff_header
from cxr_trt.images.image import Image, check_size

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

DETECTOR_BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of the detectors whose values are stored in 16-bit files."""

MAX_HOT_SHARE = 0.001
"""Of the pixels of a 16-bit file, those that may lie above the depth that all others fit into: defects and markers."""

HEADERS: dict[str, Callable[[bytes], PngHeader | JpegHeader | TiffHeader]] = {
    "PNG": png_header,
    "JPEG": jpeg_header,
    "TIFF": tiff_header,
}
BASELINE_PROCESSES = (0xC0, 0xC1, 0xC2)  # of JPEG: what libjpeg decodes, if it has 8 bits


def decode_raster(data: bytes, file_format: str) -> Image:
    """Decode a PNG, JPEG or TIFF file of any colour type.

    The EXIF orientation is applied, colour becomes BT.601 luma, transparency is ignored. Values of an 8-bit file are
    taken as they are; those of a 16-bit file are scaled by the smallest of `DETECTOR_BIT_DEPTHS` that holds all but
    `MAX_HOT_SHARE` of them.

    Args:
        data: the whole file.
        file_format: "PNG", "JPEG" or "TIFF".

    Raises:
        ImageError: the file is truncated, damaged, too large or a variant that is not supported.
    """
    header = HEADERS[file_format](data)
    check_size(header.width, header.height)
    if isinstance(header, JpegHeader) and (header.process not in BASELINE_PROCESSES or header.bits != 8):
        kind = "lossless" if header.process & 3 == 3 else "arithmetic-coded or extended"
        raise ImageError(f"the JPEG file is {kind} with {header.bits} bits per sample; convert it to PNG")
    if isinstance(header, TiffHeader) and header.pages > 1:
        raise ImageError(f"the TIFF file holds {header.pages} pages; extract one")

    warnings = []
    samples = _imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    if samples is None:
        if file_format == "TIFF":
            raise ImageError("the TIFF file is damaged or of a variant that is not supported; convert it to PNG")
        raise ImageError(f"the {file_format} file is truncated or damaged; copy it again")
    if samples.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"the {file_format} file holds values of type {samples.dtype}; convert it to 8 or 16 bits")
    if isinstance(header, PngHeader) and header.has_alpha and _is_transparent(data):
        warnings.append("transparency ignored")
    if samples.ndim == 3 and is_coloured(samples):
        warnings.append("colour image, converted to grey")
    grey = cv2.cvtColor(samples, cv2.COLOR_BGR2GRAY) if samples.ndim == 3 else samples
    pixels = grey.astype(np.float32)
    if samples.dtype == np.uint16:
        bits = _depth(samples, warnings)
        pixels = np.minimum(pixels, 2**bits - 1) / np.float32((2**bits - 1) / 255)
        if isinstance(header, TiffHeader) and header.zero_is_white:  # OpenCV inverts 8 bits only
            pixels = 255 - pixels
    return Image(pixels, file_format, tuple(warnings))


def _depth(samples: Samples, warnings: list[str]) -> int:
    """Bits of the values of a 16-bit file."""
    largest = int(samples.max())
    exact = next(depth for depth in DETECTOR_BIT_DEPTHS if largest < 2**depth)
    for depth in DETECTOR_BIT_DEPTHS:
        if depth == exact:
            break
        hot = int(np.count_nonzero(samples >= 2**depth))
        if hot <= MAX_HOT_SHARE * samples.size:
            warnings.append(f"16-bit file with {depth}-bit values but for {hot}, which became white")
            return depth
    if exact != 16:
        warnings.append(f"16-bit file with {exact}-bit values, scaled by {2**exact - 1}")
    return exact


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
