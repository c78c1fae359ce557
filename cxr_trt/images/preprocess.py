"""Resizing grey pixels to the network's input: the only resize in the project that affects scores."""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError
from cxr_trt.images.image import NO_GREY
from cxr_trt.views import Size

Fit = Literal["stretch", "pad", "center-crop"]

_DISPLAY_GREY = (
    "display grey 0..255 (DICOM: modality LUT, VOI LUT or window, MONOCHROME1 inverted; colour: BT.601 luma), "
)
PREPROCESSING_1 = (
    f"2: {_DISPLAY_GREY}stretched to a square or cut to its central square, resized by area averaging, rounded half to "
    "even"
)
PREPROCESSING = (
    f"2: {_DISPLAY_GREY}stretched, padded with black or cut around its centre to the aspect ratio of the image, "
    "resized by area averaging, rounded half to even"
)
"""Part of every specification; the first text, of those that version 1 of the specification can express. Raise both
numbers when `preprocess` or `cxr_trt.images` gives other pixels."""


BANDS = 4  # as many as OpenCV averages channels
MIN_BANDED_PIXELS = 1 << 20
MAX_SCALE_DENOMINATOR = 1 << 16  # times any row number, a scale with it is exact in double precision


def preprocess(pixels: npt.NDArray[np.float32], size: Size | int, fit: Fit = "stretch") -> npt.NDArray[np.uint8]:
    """Resize display grey to the size of the network's image.

    Args:
        pixels: float32 [H, W], 0 (black) to 255 (white).
        size: size of the result in pixels; a number stands for a square.
        fit: "stretch" keeps the whole X-ray but not its aspect ratio (paper, sec. 4.2: "resized to 512 x 512");
            "center-crop" keeps the aspect ratio but only the largest central part that has the result's, as
            torchxrayvision does; "pad" keeps both, with black beside the X-ray.

    Returns:
        uint8 [height, width].

    Raises:
        ImageError: a value that is not finite would reach the network. This is checked here because the result has far
            fewer pixels than the X-ray, and an average with such a value is not finite either.
    """
    height, width = size = Size.of(size)
    rows, columns = pixels.shape
    if fit == "pad":
        rows, columns = _inside(rows, columns, size)
        top, left = (height - rows) // 2, (width - columns) // 2
        resized = np.zeros(size, np.float32)
        resized[top : top + rows, left : left + columns] = _resized(pixels, Size(rows, columns))
    elif fit == "center-crop":
        y, x, inner_rows, inner_columns = map(int, fitted_part(rows, columns, size, fit))
        resized = _resized(pixels[y : y + inner_rows, x : x + inner_columns], size)
    else:
        resized = _resized(pixels, size)
    if not np.isfinite(resized.sum()):
        raise ImageError(NO_GREY)
    np.rint(resized, out=resized)
    return np.clip(resized, 0, 255, out=resized).astype(np.uint8)


def fitted_part(height: int, width: int, size: Size, fit: Fit) -> tuple[float, float, float, float]:
    """The part of an X-ray that becomes the whole image: y, x, height and width in pixels of the X-ray.

    For "pad", y and x are negative or zero, and the part reaches beyond the X-ray.
    """
    if fit == "pad":
        rows, columns = _inside(height, width, size)
        down, across = height / rows, width / columns
        y, x = (size.height - rows) // 2, (size.width - columns) // 2
        return -y * down, -x * across, size.height * down, size.width * across
    if fit == "center-crop":
        rows, columns = _inside(*size, Size(height, width))
        return height // 2 - rows // 2, width // 2 - columns // 2, rows, columns
    return 0, 0, height, width


def _inside(height: int, width: int, frame: Size) -> Size:
    """The largest size within `frame` that has the aspect ratio of `height` and `width`."""
    scale = min(frame.height / height, frame.width / width)
    return Size(*(max(1, min(most, round(side * scale))) for side, most in zip((height, width), frame, strict=True)))


def _resized(pixels: npt.NDArray[np.float32], size: Size) -> npt.NDArray[np.float32]:
    if _can_be_banded(pixels.shape, size):
        bands = cv2.merge(np.split(pixels, BANDS))
        resized = cv2.resize(bands, (size.width, size.height // BANDS), interpolation=cv2.INTER_AREA)
        return np.concatenate(cv2.split(resized))
    resized = cv2.resize(pixels, (size.width, size.height), interpolation=cv2.INTER_AREA)
    return resized.astype(np.float32, copy=False)


def _can_be_banded(shape: tuple[int, ...], size: Size) -> bool:
    """Whether horizontal bands of a large picture can be resized as the channels of one, which is faster.

    Area averaging adds up pixel after pixel, and the processor waits for each sum; those of several channels do not
    wait for each other. No pixel of the result changes if the bands end between pixels of both pictures, and OpenCV's
    scale has so few digits that it places each row of a band as it does in the whole picture: without rounding.
    """
    rows, columns = shape
    if rows * columns < MIN_BANDED_PIXELS or rows % BANDS or size.height % BANDS:
        return False
    if rows <= size.height or columns <= size.width or not (rows % size.height or columns % size.width):
        return False  # is not averaged, or in whole blocks, which is fast as it is
    scale = 1 / (size.height / rows)  # as OpenCV computes it
    return scale * size.height == rows and (scale * MAX_SCALE_DENOMINATOR).is_integer()
