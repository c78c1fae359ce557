"""The findings of a network: the names of its outputs, in their order."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings of ChestX-ray14, in the order of the paper's table 1."""

MAX_FINDINGS = 512
MAX_NAME_LENGTH = 64  # characters of a code meaning in DICOM (LO, PS3.5 6.2)
MAX_LISTED_NAMES = 20

RESERVED_NAMES = frozenset(
    {
        *("path", "sha256", "width", "height", "format", "warnings", "error", "engine", "calibration"),
        *("study_uid", "series_uid", "instance_uid"),
        *("image", "patient_id"),  # of a table of labels
    }
)
"""Columns of tables that are no findings."""
CALIBRATED_SUFFIX, POSITIVE_SUFFIX = "_calibrated", "_positive"  # of a finding's columns that a calibration adds


def why_not_findings(names: Any) -> str | None:
    """What is wrong with the names of a network's findings, in words; None if all is well.

    A name becomes a column of the table of scores, a part of file names, and a code meaning in DICOM.

    Args:
        names: what a file says; anything.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return "the findings are no list of names"
    if not 1 <= len(names) <= MAX_FINDINGS:
        return f"there are {len(names)} findings, and a network has 1 to {MAX_FINDINGS}"
    before: dict[str, str] = {}
    for name in names:
        if reason := _why_not_name(name):
            return f"the finding {name!r} {reason}"
        if (key := finding_key(name)) in before:
            return f"the findings {before[key]!r} and {name!r} have the same name"
        before[key] = name
    return None


def _why_not_name(name: str) -> str | None:
    if not name.strip():
        return "has no name"
    if name != name.strip():
        return "begins or ends with a blank"
    if len(name) > MAX_NAME_LENGTH:
        return f"has {len(name)} characters, and a name has at most {MAX_NAME_LENGTH}"
    if not name.isprintable():
        return "has a character that cannot be printed"
    if "\\" in name:
        return "has a backslash, which divides values in DICOM"
    if is_reserved(name):
        return "has the name of another column of the tables"
    return None


def is_reserved(column: str) -> bool:
    """Whether a column of a table is no finding, by its name."""
    key = column.casefold()
    return key in RESERVED_NAMES or key.endswith((CALIBRATED_SUFFIX, POSITIVE_SUFFIX))


def finding_key(name: str) -> str:
    """Equal for names of the same finding: they may differ in case, and in spaces where others have underscores."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split()).casefold()


def same_findings(wanted: Sequence[str], offered: Sequence[str]) -> dict[str, str]:
    """For each of the `wanted` findings that is among those `offered`, the name that it has there.

    That is an equal name or, without one, the only name that differs in no more than case, spaces and underscores.
    """
    counts = Counter(map(finding_key, offered))
    found = {finding_key(name): name for name in offered}
    names = {name: name if name in offered else found.get(finding_key(name)) for name in wanted}
    return {
        name: other for name, other in names.items() if other and (name == other or counts[finding_key(other)] == 1)
    }


def listed(names: Sequence[str]) -> str:
    """Names for a message; only the first of very many."""
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def finding_file_name(name: str) -> str:
    """A finding's name as a part of file names: letters, digits, - and _ alone, so neither a slash nor a dot."""
    return re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name)).strip("_") or "finding"


def ranked_findings(probabilities: Sequence[float]) -> list[int]:
    """Indices of the findings, the most probable first. Ties keep the order of the findings."""
    return sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)
