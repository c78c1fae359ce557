"""Stored values of a DICOM radiograph to what a display would show: a short function for each step.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): stored values, modality LUT or rescale, VOI LUT or window, then
MONOCHROME1 inverted, once. The docstring of each step in STEPS says which attributes it reads, and what it does where
one is missing, contradicts the data or is impossible; `docs/reference/dicom.md` is made from them. Whatever a step
guesses or leaves out becomes a note, and so a warning in the row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.multival import MultiValue

from cxr_trt.errors import ImageError
from cxr_trt.images.checks import code

Numbers = npt.NDArray[Any]
Booleans = npt.NDArray[np.bool_]

LOOKUP_ROWS = 64  # looked up at once: their indices stay in the cache
MAX_LOOKUP_BITS = 16


@dataclass(frozen=True)
class BitLayout:
    """How a stored value lies in its cell: `stored` bits, the highest at bit number `high` of `allocated` ones."""

    allocated: int
    stored: int
    high: int
    signed: bool


@dataclass
class Cells:
    """The pixel cells of a grey picture, unsigned [H, W], and what they hold.

    A pixel's grey depends on its cell alone. So each value that a cell of 8 or 16 bits can hold is mapped once, and the
    pixels are looked up: the same numbers in a tenth of the time.
    """

    pixels: Numbers
    layout: BitLayout
    notes: list[str] = field(default_factory=list)

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

    def picture(self, greys: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [H, W] from the greys of `values`."""
        if not self._is_looked_up:
            return greys
        pixels = np.empty(self.pixels.shape, np.float32)
        for top in range(0, len(pixels), LOOKUP_ROWS):
            rows = slice(top, top + LOOKUP_ROWS)
            np.take(greys, self.pixels[rows], out=pixels[rows], mode="clip")  # "raise" copies
        return pixels

    @property
    def _is_looked_up(self) -> bool:
        return self.layout.allocated <= MAX_LOOKUP_BITS


def display_picture(cells: Cells, photometric: str, dataset: Dataset) -> npt.NDArray[np.float32]:
    """Display grey float32 [H, W], 0 (black) to 255 (white).

    Args:
        cells: of the picture; notes are added to it.
        photometric: MONOCHROME1 or MONOCHROME2.
        dataset: for the attributes of the display.

    Raises:
        ImageError: a header that no picture can be made from.
    """
    is_padding = padding(cells, dataset)
    stored = stored_values(cells, is_padding, dataset)
    rescaled = modality_values(stored, cells.notes, dataset)
    for name, grey in voi_greys(rescaled, cells, is_padding, dataset):
        greys = polarity(grey, photometric, cells.notes, dataset)
        if is_padding is not None:
            greys[is_padding] = 0
        picture = cells.picture(greys)
        shown = picture if is_padding is None else greys[cells.present & ~is_padding]
        if not shown.size or shown.min() < shown.max() or not _varies(cells, is_padding):
            break
        cells.notes.append(f"the {name} shows all of the picture as one grey, so it was left out")
    return picture


def _varies(cells: Cells, is_padding: Booleans | None) -> bool:
    """Whether the picture has more than one stored value."""
    seen = cells.present if is_padding is None else cells.present & ~is_padding
    values = cells.values[seen]
    return bool(values.size and values.min() < values.max())


def padding(cells: Cells, dataset: Dataset) -> Booleans | None:
    """Pixel Padding Value (0028,0120), Pixel Padding Range Limit (0028,0121); PS3.3 C.7.5.1.1.2.

    Does: cells of that value, or between the two, are outside the picture and become black.
    Missing: the picture has no padding.
    Contradictory: values are compared modulo the allocated bits, so a value whose sign differs from Pixel
    Representation still matches.
    Impossible: what is not a number is ignored, with a note.
    """
    value = numbers(dataset, "PixelPaddingValue", cells.notes)
    limit = numbers(dataset, "PixelPaddingRangeLimit", cells.notes)
    if not value:
        return None
    modulus, layout = 2**cells.layout.allocated, cells.layout
    ends = [int(end[0]) for end in (value, limit or value)]
    offset = modulus // 2 if layout.signed else 0  # so that signed numbers are in order
    low, high = sorted((end + offset) % modulus for end in ends)
    whole = (cells.values + offset) % modulus
    stored = (_extracted(cells.values, layout, layout.high + 1 - layout.stored) + offset) % modulus
    mask: Booleans = ((whole >= low) & (whole <= high)) | ((stored >= low) & (stored <= high))
    return mask


def stored_values(cells: Cells, is_padding: Booleans | None, dataset: Dataset) -> Numbers:
    """Bits Stored (0028,0101), High Bit (0028,0102), Pixel Representation (0028,0103); PS3.5 8.1.1.

    Does: a value is shifted down by High Bit + 1 - Bits Stored, other bits are masked, and the sign is extended.
    Missing: Bits Stored is Bits Allocated, High Bit is Bits Stored - 1, values are unsigned.
    Contradictory: pixels that are not left-justified although High Bit says so are taken as they are, with a note.
    Bits above High Bit that are in use are masked, with a note unless an embedded overlay (60xx,0102) is there.
    Impossible: Bits Stored or High Bit outside the allocated bits are an error.
    """
    layout, values = cells.layout, cells.values
    shift = layout.high + 1 - layout.stored
    used = _used_bits(cells, is_padding)
    if shift and used & (2**shift - 1) and not used >> layout.stored:
        cells.notes.append(f"High Bit {layout.high} says that pixels are left-justified, but they are not")
        shift = 0
    stored = _extracted(values, layout, shift)
    if used >> (layout.stored + shift) and not _has_embedded_overlay(dataset, layout.stored + shift):
        whole = _extracted(values, replace(layout, stored=layout.allocated), 0) >> shift
        seen = cells.present if is_padding is None else cells.present & ~is_padding
        if (whole != stored)[seen].any():
            cells.notes.append(
                f"cells hold more than the {layout.stored} bits of Bits Stored; the others were left out"
            )
    return stored


def _extracted(values: Numbers, layout: BitLayout, shift: int) -> Numbers:
    """The stored bits of cells from bit number `shift` on, with their sign."""
    sign = 2 ** (layout.stored - 1) if layout.signed else 0
    stored: Numbers = (((values >> shift) & (2**layout.stored - 1)) ^ sign) - sign
    return stored


def _used_bits(cells: Cells, is_padding: Booleans | None) -> int:
    """The bits that are 1 in any cell of the picture."""
    if is_padding is None:
        return int(np.bitwise_or.reduce(cells.pixels, axis=None))
    return int(np.bitwise_or.reduce(cells.values[cells.present & ~is_padding], initial=0))


def _has_embedded_overlay(dataset: Dataset, first_bit: int) -> bool:
    """Whether an overlay plane lies in the bits of the cells from that number on (PS3.3 C.9.2, retired)."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(element is not None and (element.value or 0) >= first_bit for element in positions)


def modality_values(stored: Numbers, notes: list[str], dataset: Dataset) -> Numbers:
    """Modality LUT Sequence (0028,3000), else Rescale Slope (0028,1053) and Intercept (0028,1052); PS3.3 C.11.1.

    Does: the first table that can be used, else slope times value plus intercept.
    Missing: slope 1, intercept 0.
    Contradictory: a table together with a slope is used alone.
    Impossible: a slope of 0, or one of the two that is not a finite number, is ignored, with a note.
    """
    for item in _items(dataset, "ModalityLUTSequence", notes):
        table = lookup_table(item, "Modality LUT", bool(stored.min() < 0), notes, dataset)
        if table:
            return table.map(stored)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in dataset and dataset.get_item(keyword).value in (None, b"", ""):
            notes.append(f"{dictionary_description(keyword)} is empty and was ignored")
    slope = numbers(dataset, "RescaleSlope", notes) or (1.0,)
    intercept = numbers(dataset, "RescaleIntercept", notes) or (0.0,)
    if slope[0] == 0:
        notes.append("Rescale Slope is 0 and was ignored")
        return stored.astype(np.float64)
    if (slope[0], intercept[0]) == (1.0, 0.0):
        return stored
    return stored * slope[0] + intercept[0]


def voi_greys(
    values: Numbers, cells: Cells, is_padding: Booleans | None, dataset: Dataset
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """VOI LUT Sequence (0028,3010), else Window Center (0028,1050) and Width (0028,1051); PS3.3 C.11.2.

    Does: the first table that can be used, else the first window, else a stretch from the smallest to the largest
    value of the picture. VOI LUT Function (0028,1056) says how a window is applied.
    Missing: without table and window the picture is stretched, with a note. Without a function a window is LINEAR.
    Contradictory: a table or window that shows the whole picture as one grey is left out, with a note.
    Impossible: a width that its function does not allow (below 1 for LINEAR), a number that is not finite, a table
    that is too short, or an unknown function is ignored, with a note.

    Yields:
        What was used, and the greys of `values`, 0 to 255 within its output range, in order of preference.
    """
    notes, noted, was_tried = cells.notes, len(cells.notes), False
    for item in _items(dataset, "VOILUTSequence", notes):
        table = lookup_table(item, "VOI LUT", bool(values.min() < 0), notes, dataset)
        if table:
            was_tried = True
            yield "VOI LUT", table.map(values) * (255.0 / table.white)
    centers, widths = numbers(dataset, "WindowCenter", notes), numbers(dataset, "WindowWidth", notes)
    function = _voi_function(dataset, notes) if centers and widths else ""
    for center, width in zip(centers, widths, strict=False):
        if width >= 1 or (width > 0 and function != "LINEAR"):
            was_tried = True
            yield "window", _windowed(values, center, width, function)
        else:
            notes.append(f"a Window Width of {width:g} is not possible and was ignored")
    usable = "usable " if was_tried or len(notes) > noted else ""
    notes.append(f"no {usable}VOI LUT or window, stretched from the smallest to the largest value")
    seen = cells.present if is_padding is None else cells.present & ~is_padding
    shown = values[seen]
    black, white = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 0.0)
    scale = 255 / (white - black) if white != black else 0.0
    yield "stretch", (values - black) * scale


def _voi_function(dataset: Dataset, notes: list[str]) -> str:
    function = text(dataset, "VOILUTFunction")
    if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):  # C.11.2.1.3
        return function
    if function:
        notes.append(f"the VOI LUT Function {code(function)} is unknown, LINEAR was used")
    elif "VOILUTFunction" in dataset:
        notes.append("the VOI LUT Function is empty, LINEAR was used")
    return "LINEAR"


def _windowed(values: Numbers, center: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """A window with an output range of 0 to 255 (C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            sigmoid: npt.NDArray[np.float64] = 255 / (1 + np.exp(-4 * (values - center) / width))
        return sigmoid
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values <= center, 0.0, 255.0)
    return np.clip((values - center) / width + 0.5, 0, 1) * 255.0


@dataclass(frozen=True)
class LookupTable:
    """Entries for the values from `first` on; those below and above take the ends. `white`: the largest output."""

    first: int
    entries: Numbers
    white: int

    def map(self, values: Numbers) -> npt.NDArray[np.float64]:
        places = np.rint(values).astype(np.int64) - self.first
        mapped: npt.NDArray[np.float64] = self.entries[np.clip(places, 0, len(self.entries) - 1)].astype(np.float64)
        return mapped


def lookup_table(
    item: Dataset, name: str, values_can_be_negative: bool, notes: list[str], dataset: Dataset
) -> LookupTable | None:
    """LUT Descriptor (0028,3002) and LUT Data (0028,3006) of a table; PS3.3 C.11.1.1.1 and C.11.2.1.1.

    Does: the number of entries (0 is 65,536) and the bits are unsigned; the first value is signed if the values that
    are looked up can be negative.
    Missing: a table without descriptor or data is ignored, with a note.
    Contradictory: the depth is taken from the entries where the descriptor says another, with a note.
    Impossible: a table with fewer entries than it says, or whose entries are all the same, is ignored, with a note.
    """
    descriptor = numbers(item, "LUTDescriptor", notes)
    data = _lut_data(item, dataset)
    if len(descriptor) != 3 or data is None:
        notes.append(f"the {name} has no usable descriptor or data and was ignored")
        return None
    count, first, bits = (int(number) % 65536 for number in descriptor)
    count = count or 65536
    if first > 32767 and values_can_be_negative:
        first -= 65536
    entries = _unpacked(data, count, bits, dataset)
    if entries is None:
        notes.append(f"the {name} has fewer entries than the {count} that it says, and was ignored")
        return None
    if entries.min() == entries.max():
        notes.append(f"all entries of the {name} are the same, so it was ignored")
        return None
    depth = int(entries.max()).bit_length()
    if depth != bits:
        notes.append(f"the {name} says {bits} bits and holds {depth}, which was used")
    return LookupTable(first, entries.astype(np.int64), 2**depth - 1)


def _lut_data(item: Dataset, dataset: Dataset) -> bytes | Numbers | None:
    try:
        data = item.get("LUTData")
    except Exception:  # pydicom raises whatever a damaged element leads to
        return None
    if data is None or isinstance(data, bytes):
        return data or None
    values = np.atleast_1d(np.asarray(list(data) if isinstance(data, MultiValue) else data))
    return values.astype(np.int64) % 65536 if values.dtype.kind in "iu" else None


def _unpacked(data: bytes | Numbers, count: int, bits: int, dataset: Dataset) -> Numbers | None:
    """The entries of a table: words, or bytes where only they fit; None if there are too few."""
    if isinstance(data, bytes):
        packed = bits <= 8 and len(data) < 2 * count
        order = ">" if dataset.original_encoding[1] is False else "<"
        width = 1 if packed else 2
        data = np.frombuffer(data[: len(data) // width * width], "u1" if packed else f"{order}u2")
    return data[:count] if len(data) >= count else None


def polarity(
    grey: npt.NDArray[np.float64], photometric: str, notes: list[str], dataset: Dataset
) -> npt.NDArray[np.float32]:
    """Photometric Interpretation (0028,0004), PS3.3 C.7.6.3.1.2; Presentation LUT Shape (2050,0020), C.11.6.

    Does: MONOCHROME1 is inverted, once, after everything else.
    Missing: MONOCHROME2 is taken, with a note.
    Contradictory: Presentation LUT Shape only repeats the Photometric Interpretation, which is followed, with a note.
    Impossible: an unknown value, or one sample where the interpretation needs three, is an error.
    """
    pixels = np.clip(grey, 0, 255).astype(np.float32)
    if photometric == "MONOCHROME1":
        pixels = 255 - pixels
    shape = text(dataset, "PresentationLUTShape")
    if (photometric, shape) in {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}:
        note = f"Presentation LUT Shape {shape} contradicts {photometric}, which was followed"
        if note not in notes:
            notes.append(note)
    return pixels


STEPS: tuple[Callable[..., Any], ...] = (padding, stored_values, modality_values, voi_greys, lookup_table, polarity)
"""In the order in which they are applied."""


def numbers(dataset: Dataset, keyword: str, notes: list[str]) -> tuple[float, ...]:
    """The finite numbers of an attribute: none if it is missing or empty, or, with a note, if one is not a number."""
    try:
        value = dataset.get(keyword)
        values = () if value is None or value == "" else value if isinstance(value, MultiValue | list) else (value,)
        found = tuple(float(number) for number in values)
    except Exception:  # pydicom raises whatever a damaged element leads to
        found = (float("nan"),)
    if not np.isfinite(found).all():
        notes.append(f"{dictionary_description(keyword)} is not a finite number and was ignored")
        return ()
    return found


def text(dataset: Dataset, keyword: str) -> str:
    """The value of an attribute in upper case without surrounding spaces; empty if it is missing or unreadable."""
    try:
        return str(dataset.get(keyword) or "").strip().upper()
    except Exception:  # pydicom raises whatever a damaged element leads to
        return ""


def _items(dataset: Dataset, keyword: str, notes: list[str]) -> list[Dataset]:
    try:
        return list(dataset.get(keyword) or ())
    except Exception:  # as above
        notes.append(f"{dictionary_description(keyword)} is damaged and was ignored")
        return []


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
