"""Stored values of a DICOM radiograph to what a display would show: a short function for each step.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): stored values, modality LUT or rescale, VOI LUT or window, then
MONOCHROME1 inverted, once. The docstring of each step in STEPS says which attributes it reads, and what it does where
one is missing, contradicts the data or is impossible; `docs/reference/dicom.md` is made from them. Whatever a step
guesses or leaves out becomes a note, and so a warning in the row.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.datadict import dictionary_description

from cxr_trt.images.dicom_attributes import code, items, numbers, text
from cxr_trt.images.dicom_cells import BitLayout, Booleans, Cells, Numbers
from cxr_trt.images.dicom_lut import lookup_table

CENTRAL_PERCENTILES = (1, 99)
FLAT_GREYS_MAX = 1.0  # with fewer greys between its central percentiles, of 255, a picture is one grey
VARIED_VALUES_MIN = 16  # if there are at least so many stored values between them
FLOATS = np.finfo(np.float32)  # rescaled values, and their slope, lie in this range


def display_picture(cells: Cells, photometric: str, dataset: Dataset) -> npt.NDArray[np.float32]:
    """Display grey float32 [H, W], 0 (black) to 255 (white).

    Args:
        cells: of the picture; notes are added to it.
        photometric: MONOCHROME1 or MONOCHROME2.
        dataset: for the attributes of the display.

    Raises:
        ImageError: a header that no picture can be made from.
    """
    cells.is_padding = padding(cells, dataset)
    stored = stored_values(cells, dataset)
    rescaled = modality_values(stored, cells.notes, dataset)
    for name, grey in voi_greys(rescaled, stored, cells, dataset):
        greys = polarity(grey, photometric, cells.notes, dataset)
        if cells.is_padding is not None:
            greys[cells.is_padding] = 0
        if not _hides_the_picture(greys, stored, cells):
            break
        cells.notes.append(f"the {name} shows all of the picture as one grey, so it was left out")
    return cells.picture(greys)


def _hides_the_picture(greys: npt.NDArray[np.float32], stored: Numbers, cells: Cells) -> bool:
    """Whether all of the picture, or nearly all, is one grey because of how it is displayed, not because of its pixels.

    `greys` and `stored` values are those of `cells.values`.
    """
    if np.ptp(_central_values(greys, cells)) >= FLAT_GREYS_MAX:
        return False
    return _merges(greys, stored, cells) or bool(np.ptp(_central_values(stored, cells)) >= VARIED_VALUES_MIN)


def _merges(mapped: Numbers, source: Numbers, cells: Cells) -> bool:
    """Whether all pixels become one number that were not before; both are of `cells.values`."""
    return not _varies(cells.sample(mapped)) and not _varies(mapped[cells.shown]) and _varies(source[cells.shown])


def _varies(values: Numbers) -> bool:
    return bool(values.size and values.min() < values.max())


def padding(cells: Cells, dataset: Dataset) -> Booleans | None:
    """Pixel Padding Value (0028,0120), Pixel Padding Range Limit (0028,0121); PS3.3 C.7.5.1.1.2.

    Does: cells of that value, or between the two, are outside the picture and become black.
    Missing: the picture has no padding.
    Contradictory: values are compared modulo the allocated bits, so a value whose sign differs from Pixel
    Representation still matches. A range that holds every pixel of a picture that varies is ignored, with a note.
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
    if limit and not (cells.present & ~mask).any() and _varies(cells.values[cells.present]):
        cells.notes.append("the range of Pixel Padding Values holds all of the picture and was ignored")
        return None
    return mask


def stored_values(cells: Cells, dataset: Dataset) -> Numbers:
    """Bits Stored (0028,0101), High Bit (0028,0102), Pixel Representation (0028,0103); PS3.5 8.1.1.

    Does: a value is shifted down by High Bit + 1 - Bits Stored, other bits are masked, and the sign is extended.
    Missing: Bits Stored is Bits Allocated, High Bit is Bits Stored - 1, values are unsigned.
    Contradictory: pixels that are not left-justified although High Bit says so are taken as they are, with a note.
    Bits above High Bit that are in use are masked, with a note unless an embedded overlay (60xx,0102) is there. If the
    stored bits are the same in all pixels and others are not, whole cells are taken, with a note.
    Impossible: Bits Stored or High Bit outside the allocated bits are an error.
    """
    layout, values = cells.layout, cells.values
    shift = layout.high + 1 - layout.stored
    used = _used_bits(cells)
    if shift and used & (2**shift - 1) and not used >> layout.stored:
        cells.notes.append(f"High Bit {layout.high} says that pixels are left-justified, but they are not")
        shift = 0
    stored = _extracted(values, layout, shift)
    whole = _extracted(values, replace(layout, stored=layout.allocated), 0)
    if _merges(stored, values, cells):
        cells.notes.append(
            f"Bits Stored {layout.stored} and High Bit {layout.high} leave one value, so whole cells were taken"
        )
        return whole
    is_cut = bool(used >> (layout.stored + shift)) and bool((whole >> shift != stored)[cells.shown].any())
    if is_cut and not _has_embedded_overlay(dataset, layout.stored + shift):
        cells.notes.append(f"cells hold more than the {layout.stored} bits of Bits Stored; the others were left out")
    return stored


def _extracted(values: Numbers, layout: BitLayout, shift: int) -> Numbers:
    """The stored bits of cells from bit number `shift` on, with their sign."""
    sign = 2 ** (layout.stored - 1) if layout.signed else 0
    stored: Numbers = (((values >> shift) & (2**layout.stored - 1)) ^ sign) - sign
    return stored


def _used_bits(cells: Cells) -> int:
    """The bits that are 1 in any cell of the picture."""
    if cells.is_padding is None:
        return int(np.bitwise_or.reduce(cells.pixels, axis=None))
    return int(np.bitwise_or.reduce(cells.values[cells.shown], initial=0))


def _has_embedded_overlay(dataset: Dataset, first_bit: int) -> bool:
    """Whether an overlay plane lies in the bits of the cells from that number on (PS3.3 C.9.2, retired)."""
    positions = (dataset.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(element is not None and (element.value or 0) >= first_bit for element in positions)


def modality_values(stored: Numbers, notes: list[str], dataset: Dataset) -> Numbers:
    """Modality LUT Sequence (0028,3000), else Rescale Slope (0028,1053) and Intercept (0028,1052); PS3.3 C.11.1.

    Does: the first table that can be used, else slope times value plus intercept.
    Missing: slope 1, intercept 0.
    Contradictory: a table together with a slope is used alone.
    Impossible: a slope that is 0, or so small or large that values would fall together or be infinite, is ignored with
    its intercept, with a note; so is one of the two that is not a finite number.
    """
    for item in items(dataset, "ModalityLUTSequence", notes):
        table = lookup_table(item, "Modality LUT", bool(stored.min() < 0), notes, dataset)
        if table:
            return table.map(stored)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in dataset and dataset.get_item(keyword).value in (None, b"", ""):
            notes.append(f"{dictionary_description(keyword)} is empty and was ignored")
    slope = (numbers(dataset, "RescaleSlope", notes) or (1.0,))[0]
    intercept = (numbers(dataset, "RescaleIntercept", notes) or (0.0,))[0]
    if (slope, intercept) == (1.0, 0.0):
        return stored
    largest = abs(slope) * float(np.abs(stored).max()) + abs(intercept)
    if not (largest <= FLOATS.max and abs(slope) >= max(FLOATS.tiny, np.spacing(largest))):
        notes.append(f"Rescale Slope {slope:g} with Rescale Intercept {intercept:g} is not possible and was ignored")
        return stored
    return stored * slope + intercept


def voi_greys(
    values: Numbers, stored: Numbers, cells: Cells, dataset: Dataset
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """VOI LUT Sequence (0028,3010), else Window Center (0028,1050) and Width (0028,1051); PS3.3 C.11.2.

    Does: the first table that can be used, else the first window, else a stretch from the smallest to the largest
    value of the picture. VOI LUT Function (0028,1056) says how a window is applied.
    Missing: without table and window the picture is stretched, with a note. Without a function a window is LINEAR.
    Contradictory: a table, window or stretch that shows the picture, or all but its lowest and highest hundredths, as
    one grey although its stored values differ is left out, with a note. If all do, the values are stretched between
    these hundredths; if that does not help, the stored values are, without modality LUT and rescale.
    Impossible: a width that its function does not allow (below 1 for LINEAR), a number that is not finite, a table
    that is too short, or an unknown function is ignored, with a note.

    Yields:
        What was used, and the greys of `values`, 0 to 255 within its output range, in order of preference.
    """
    notes, noted, was_tried = cells.notes, len(cells.notes), False
    for item in items(dataset, "VOILUTSequence", notes):
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
    yield "stretch", _stretched(values, *_extremes(values, cells))
    for name, mapped in (("rescaled", values), ("stored", stored)):
        black, white = _central_values(mapped, cells)
        if black < white:
            notes.append(f"the {name} values were stretched from their lowest hundredth to their highest")
            yield f"stretch of {name} values", _stretched(mapped, black, white)
    notes.append("the stored values were stretched from the smallest to the largest")
    yield "stretch of stored values", _stretched(stored, *_extremes(stored, cells))


def _stretched(values: Numbers, black: float, white: float) -> npt.NDArray[np.float64]:
    scale = 255 / (white - black) if white != black else 0.0
    greys: npt.NDArray[np.float64] = (values - black) * scale
    return greys


def _extremes(mapped: Numbers, cells: Cells) -> tuple[float, float]:
    """The smallest and the largest number of the pixels; 0 twice if there are none."""
    inside = mapped[cells.shown]
    return (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)


def _central_values(mapped: Numbers, cells: Cells) -> tuple[float, float]:
    """The same without the lowest and the highest hundredth of the pixels, by a sample."""
    sample = cells.sample(mapped)
    low, high = np.percentile(sample, CENTRAL_PERCENTILES) if sample.size else (0, 0)
    return float(low), float(high)


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
