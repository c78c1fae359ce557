"""Pixel cells of a grey DICOM picture, and where in a cell its stored value lies (PS3.5 8.1.1)."""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from cxr_trt.errors import ImageError
from cxr_trt.images.dicom_attributes import numbers

Numbers = npt.NDArray[Any]
Booleans = npt.NDArray[np.bool_]

LOOKUP_ROWS = 64  # looked up at once: their indices stay in the cache
MAX_LOOKUP_BITS = 16
SAMPLE_SIDE = 128  # a sample has at least so many rows and columns, if the picture has


@dataclass(frozen=True)
class BitLayout:
    """How a stored value lies in its cell: `stored` bits, the highest at bit number `high` of `allocated` ones."""

    allocated: int
    stored: int
    high: int
    signed: bool


@dataclass
class Cells:
    """The pixel cells of a picture, unsigned [H, W] or [H, W, samples], and what they hold.

    notes: what was guessed, for the row's warnings.
    is_padding: which of `values` are outside the picture; None if none are.

    A pixel's grey depends on its cell alone. So each value that a cell of 8 or 16 bits can hold is mapped once, and the
    pixels are looked up: the same numbers in a tenth of the time.
    """

    pixels: Numbers
    layout: BitLayout
    notes: list[str] = field(default_factory=list)
    is_padding: Booleans | None = None

    @cached_property
    def values(self) -> Numbers:
        """What is mapped: every value of a cell, or for larger cells the pixels themselves; int64."""
        if self._is_looked_up:
            return np.arange(2**self.layout.allocated, dtype=np.int64)
        return self.pixels.astype(np.int64)

    @cached_property
    def present(self) -> Booleans:
        """Which of `values` the picture has."""
        if not self._is_looked_up:
            return np.ones(self.pixels.shape, bool)
        found = np.zeros(2**self.layout.allocated, bool)
        found[self.pixels] = True
        return found

    @property
    def shown(self) -> Booleans:
        """Which of `values` the picture has, without its padding."""
        return self.present if self.is_padding is None else self.present & ~self.is_padding

    def sample(self, mapped: Numbers) -> Numbers:
        """What `values` were mapped to, for pixels on a grid over the picture, without its padding; one-dimensional."""
        step = max(1, min(self.pixels.shape[:2]) // SAMPLE_SIDE)
        grid = (slice(None, None, step), slice(None, None, step))
        places: Any = self.pixels[grid] if self._is_looked_up else grid
        found: Numbers = mapped[places]
        return found.ravel() if self.is_padding is None else found[~self.is_padding[places]]

    def picture(self, greys: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [H, W] or [H, W, samples] from the greys of `values`."""
        if not self._is_looked_up:
            return greys
        with suppress(cv2.error):  # no tables for 16 bits before OpenCV 4.13, and never for cells of 12 bits, say
            return cv2.LUT(self.pixels, greys).reshape(self.pixels.shape)  # type: ignore[return-value]
        pixels = np.empty(self.pixels.shape, np.float32)
        for top in range(0, len(pixels), LOOKUP_ROWS):
            rows = slice(top, top + LOOKUP_ROWS)
            np.take(greys, self.pixels[rows], out=pixels[rows], mode="clip")  # "raise" copies
        return pixels

    @property
    def _is_looked_up(self) -> bool:
        return self.layout.allocated <= MAX_LOOKUP_BITS


def bit_layout(dataset: Dataset, allocated: int, notes: list[str]) -> BitLayout:
    """The layout of cells of `allocated` bits, by the data set. Raises ImageError if it is impossible."""
    stored = int((numbers(dataset, "BitsStored", notes) or (allocated,))[0])
    high = int((numbers(dataset, "HighBit", notes) or (stored - 1,))[0])
    signed = (numbers(dataset, "PixelRepresentation", notes) or (0.0,))[0] == 1
    if allocated < dataset.BitsAllocated:  # a compressed stream of smaller samples
        stored = min(stored, allocated)
        high = stored - 1
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise ImageError(
            f"Bits Stored {stored} and High Bit {high} are not possible with {allocated} bits allocated; "
            "export the image again"
        )
    return BitLayout(allocated, stored, high, signed)
