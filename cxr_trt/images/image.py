"""The decoded image that every decoder returns, and the limit of its size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.errors import ImageError

MAX_PIXELS = 200_000_000
"""Larger images are refused before their pixels are decoded. The largest radiographs have about 25 million pixels."""

NO_GREY = "the decoded picture holds values that are no grey; export the image again"

VIEW_KEYWORD = "ViewPosition"
"""CR Series Module (PS3.3 C.8.1.1), DX Positioning Module (PS3.3 C.8.11.5)."""

Identity = Mapping[str, str | None]
"""Whose X-ray a DICOM file is, by attribute: see `cxr_trt.images.identity.read_identity`."""


@dataclass(frozen=True)
class Image:
    """A grey picture as a display would show it.

    Attributes:
        pixels: float32 [H, W], 0 (black) to 255 (white).
        format: "PNG", "JPEG" or "DICOM".
        warnings: one sentence for everything that was guessed or ignored.
    """

    pixels: npt.NDArray[np.float32]
    format: str
    warnings: tuple[str, ...] = ()


def check_size(width: int, height: int) -> None:
    """Raise ImageError if an image of `width` x `height` pixels is empty or too large."""
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width} x {height}); export it again")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the image is too large ({width} x {height}); export it with at most {MAX_PIXELS // 1_000_000} megapixels"
        )


def check_grey(pixels: npt.NDArray[Any]) -> None:
    """Raise ImageError unless this is a grey picture, float32 [height, width]."""
    if pixels.dtype != np.float32 or pixels.ndim != 2:
        raise ImageError(NO_GREY)
