"""Lookup tables of DICOM: Modality LUT and VOI LUT (PS3.3 C.11.1.1 and C.11.2.1.1)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.multival import MultiValue

from cxr_trt.images.dicom_attributes import numbers
from cxr_trt.images.dicom_cells import Numbers


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
