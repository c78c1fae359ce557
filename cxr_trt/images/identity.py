"""Whose X-ray a DICOM file is, and of which study: read for DICOM results alone, where somebody has asked for them.

It is read where files are decoded, in a process of its own (`cxr_trt.images.worker`), and leaves it as plain text.
"""

import io
from types import MappingProxyType

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from cxr_trt.images.dicom import no_python_warnings
from cxr_trt.images.image import Identity

PATIENT_AND_STUDY = (
    "PatientName",  # Patient Module (PS3.3 C.7.1.1)
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",  # General Study Module (PS3.3 C.7.2.1)
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
"""What a result has of its source: the attributes of Type 1 and 2 of both modules, and no others."""

REFERENCE = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
"""What a result says of its source (PS3.3 C.17.2, Hierarchical SOP Instance Reference Macro)."""

ORIENTATION = "PatientOrientation"  # General Image Module (PS3.3 C.7.6.1.1.1)
KEYWORDS = (*PATIENT_AND_STUDY, *REFERENCE, ORIENTATION)
LONGEST = 200  # characters; a PN may have three groups of 64 (PS3.5 6.2)

UNREADABLE: Identity = MappingProxyType(dict.fromkeys(KEYWORDS))


def read_identity(data: bytes) -> Identity:
    r"""Read KEYWORDS from the header of a DICOM file; it never raises, whatever the file holds.

    Args:
        data: the whole file, with preamble.

    Returns:
        A value for each of KEYWORDS: empty if the file has none, None if it is too long or cannot be read. Several are
        joined by a \.
    """
    try:
        with no_python_warnings():
            dataset = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(KEYWORDS))
            return {keyword: _text(dataset, keyword) for keyword in KEYWORDS}
    except Exception:  # pydicom raises whatever a damaged element leads to, and quotes the element
        return UNREADABLE


def _text(dataset: Dataset, keyword: str) -> str | None:
    try:
        value = dataset.get(keyword)
    except Exception:  # as above
        return None
    text = "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return text if len(text) <= LONGEST else None
