"""What the results of a DICOM file repeat of the file: patient, study and reference."""

from dataclasses import dataclass, field
from importlib.metadata import version
from uuid import NAMESPACE_OID, uuid5

from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
from pydicom.valuerep import validate_value

from cxr_trt.errors import DicomHeaderError
from cxr_trt.images.identity import IDENTITY_KEYWORDS, ORIENTATION_KEYWORD, PATIENT_AND_STUDY, REFERENCE_KEYWORDS
from cxr_trt.images.image import Identity

MAKER, VERSION = "cxr-trt", version("cxr-trt")

REQUIRED_KEYWORDS = ("StudyInstanceUID", *REFERENCE_KEYWORDS)
"""Type 1: they must have a value, while all others may be empty (PS3.5 7.4)."""
ALLOWED_SEXES = ("", "M", "F", "O")  # PS3.3 C.7.1.1
UNDECODABLE = "\N{REPLACEMENT CHARACTER}"  # pydicom's replacement for bytes that are not in the file's character set
RADIOGRAPH_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
"""SOP classes in which a projection X-ray may be stored."""


@dataclass(frozen=True)
class SourceImage:
    """The values of IDENTITY_KEYWORDS, all of which the standard allows in a result."""

    values: dict[str, str] = field(repr=False)

    def reference(self) -> Dataset:
        """The dataset that highdicom makes a result from: UIDs, and no names, as highdicom quotes names in warnings."""
        reference = Dataset()
        for keyword in PATIENT_AND_STUDY:
            setattr(reference, keyword, None)
        for keyword in REQUIRED_KEYWORDS:
            setattr(reference, keyword, self.values[keyword])
        return reference

    def identify(self, result: Dataset) -> None:
        """Write patient and study into a result (PS3.3 C.7.1.1 and C.7.2.1)."""
        result.SpecificCharacterSet = "ISO_IR 192"
        for keyword in PATIENT_AND_STUDY:
            setattr(result, keyword, self.values[keyword])

    @property
    def orientation(self) -> list[str]:
        """Patient Orientation of rows and columns; empty if the file does not say."""
        return [part for part in self.values[ORIENTATION_KEYWORD].split("\\") if part]

    def uid(self, *parts: str) -> UID:
        """A UID that follows from the file and `parts` alone: derived from a UUID of version 5 (PS3.5 B.2)."""
        text = "/".join((MAKER, self.values["SOPInstanceUID"], *parts))
        return UID(f"2.25.{uuid5(NAMESPACE_OID, text).int}")


def source_image(identity: Identity) -> SourceImage:
    """Check what a decoding process has read from a file; nothing has checked it before.

    Raises:
        DicomHeaderError: a result would not conform; the sentence names the attribute and never quotes its value.
    """
    values = {keyword: identity.get(keyword) for keyword in IDENTITY_KEYWORDS}
    missing = [keyword for keyword in REQUIRED_KEYWORDS if values[keyword] == ""]
    if missing:
        raise DicomHeaderError(f"its header has no {' and no '.join(missing)}, which a DICOM result must name")
    damaged = [keyword for keyword, value in values.items() if not _is_allowed(keyword, value)]
    if damaged:
        names = ", ".join(damaged)
        raise DicomHeaderError(f"its header has a value that the standard does not allow in {names}; export it again")
    if values["SOPClassUID"] not in RADIOGRAPH_CLASSES:
        raise DicomHeaderError("its SOPClassUID is not that of a CR, a DX, a fluoroscopy or a secondary capture")
    return SourceImage({keyword: value for keyword, value in values.items() if value is not None})


def _is_allowed(keyword: str, value: object) -> bool:
    """Whether a value has the keyword's value representation (PS3.5 6.2) and is one of its defined terms, if any."""
    if not isinstance(value, str) or not value.isprintable() or UNDECODABLE in value:
        return False
    parts = value.split("\\")
    if len(parts) != (2 if keyword == ORIENTATION_KEYWORD and value else 1) or (
        keyword == "PatientSex" and value not in ALLOWED_SEXES
    ):
        return False
    try:
        for part in parts:
            validate_value(dictionary_VR(keyword), part, config.RAISE)
    except ValueError:
        return False
    return True
