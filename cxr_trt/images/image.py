"""What every decoder returns, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError

MAX_PIXELS = 200_000_000
"""A larger image is refused before its pixels are decoded; the largest radiographs hold about 25 million."""

Identity = Mapping[str, str | None]
"""Whose X-ray a DICOM file is, by attribute: see `cxr_trt.images.identity.read_identity`."""


@dataclass(frozen=True)
class Image:
    """A grey picture as a display would show it.

    Attributes:
        pixels: float32 [H, W], 0 (black) to 255 (white).
        format: "PNG", "JPEG" or "DICOM".
        warnings: one sentence for each thing that was guessed or left out.
    """

    pixels: npt.NDArray[np.float32]
    format: str
    warnings: tuple[str, ...] = ()


def check_size(width: int, height: int) -> None:
    """Raise ImageError unless an image of `width` x `height` pixels is worth decoding."""
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width} x {height}); export it again")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the image is too large ({width} x {height}); export it with at most {MAX_PIXELS // 1_000_000} megapixels"
        )
