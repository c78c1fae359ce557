"""The patient and study of a DICOM file. They are only read when DICOM results, UIDs or pairs are requested.

They are read in the decoding process (`cxr_trt.images.worker`), which passes them on as plain text.
"""

import io
from types import MappingProxyType

from pydicom import Dataset, dcmread
from pydicom.multival import MultiValue

from cxr_trt.images.dicom import no_python_warnings
from cxr_trt.images.image import VIEW_KEYWORD, Identity

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
"""What a DICOM result copies from its source: the attributes of Type 1 and 2 of both modules, and no others."""

REFERENCE_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
"""How a DICOM result refers to its source (PS3.3 C.17.2, Hierarchical SOP Instance Reference Macro)."""

ORIENTATION_KEYWORD = "PatientOrientation"  # General Image Module (PS3.3 C.7.6.1.1.1)
IDENTITY_KEYWORDS = (*PATIENT_AND_STUDY, *REFERENCE_KEYWORDS, ORIENTATION_KEYWORD)
READ_KEYWORDS = (*IDENTITY_KEYWORDS, VIEW_KEYWORD)
MAX_VALUE_CHARACTERS = 200  # a PN may have three groups of 64 (PS3.5 6.2)

UNREADABLE_IDENTITY: Identity = MappingProxyType(dict.fromkeys(READ_KEYWORDS))


def read_identity(data: bytes) -> Identity:
    r"""Read READ_KEYWORDS from the header of a DICOM file. This never raises, whatever the file contains.

    Args:
        data: the whole file, with preamble.

    Returns:
        A value for each of READ_KEYWORDS: empty if the file has none, None if it is too long or cannot be read.
        Multiple values are joined by a \.
    """
    try:
        with no_python_warnings():
            dataset = dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=list(READ_KEYWORDS))
            return {keyword: _text(dataset, keyword) for keyword in READ_KEYWORDS}
    except Exception:  # a damaged element can raise anything
        return UNREADABLE_IDENTITY


def _text(dataset: Dataset, keyword: str) -> str | None:
    try:
        value = dataset.get(keyword)
    except Exception:  # as above
        return None
    text = "" if value is None else "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    return text if len(text) <= MAX_VALUE_CHARACTERS else None
