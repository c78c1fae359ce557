"""Attributes of data sets as people have them: missing, empty, damaged or typed by hand."""

import re

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_description
from pydicom.multival import MultiValue

STANDARD_TERMS = """ABDOMEN, ANKLE, BREAST, CALCANEUS, CLAVICLE, COCCYX, CSPINE, ELBOW, EXTREMITY, FEMUR, FINGER,
FOREARM, HUMERUS, LSPINE, MANDIBLE, PATELLA, PELVIS, SHOULDER, SKULL, SPINE, SSPINE, STERNUM, TSPINE, WRIST, WHOLEBODY,
MONOCHROME1, MONOCHROME2, PALETTE COLOR, YBR_FULL, YBR_FULL_422, YBR_PARTIAL_420, YBR_PARTIAL_422, YBR_ICT,
YBR_RCT""".replace("\n", " ").split(", ")
"""Values of more than four letters that a message may quote: of Body Part Examined (PS3.16 annex L) and of Photometric
Interpretation (PS3.3 C.7.6.3.1.2)."""


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
    """A value in capital letters, several joined by a backslash; empty if it is missing or cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises whatever a damaged element leads to
        return ""
    parts = value if isinstance(value, MultiValue | list) else [value]
    return "\\".join(str(part or "").strip().upper() for part in parts)


def items(dataset: Dataset, keyword: str, notes: list[str]) -> list[Dataset]:
    """The items of a sequence: none if it is missing or, with a note, if it cannot be read."""
    try:
        return list(dataset.get(keyword) or ())
    except Exception:  # as above
        notes.append(f"{dictionary_description(keyword)} is damaged and was ignored")
        return []


def code(value: str) -> str:
    """The value if it is a term of the standard. Messages quote nothing else: somebody may have typed a name."""
    return value if value in STANDARD_TERMS or re.fullmatch("[A-Z0-9]{1,4}", value) else "(not a term of the standard)"
