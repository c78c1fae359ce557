"""The secondary capture: a heat map as a colour image (Secondary Capture Image IOD, PS3.3 A.8)."""

import datetime
import hashlib

import numpy as np
import numpy.typing as npt
from highdicom import ContentQualificationValues
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from cxr_trt.results.dicom.codes import SOURCE_IMAGE
from cxr_trt.results.dicom.source import MAKER, VERSION, SourceImage
from cxr_trt.tables.rows import NOTICE, Row

SERIES_NUMBER = 9002  # after that of the report


def secondary_capture(
    source: SourceImage,
    row: Row,
    picture: npt.NDArray[np.uint8],
    finding: str,
    rank: int,
    made: datetime.datetime,
) -> SCImage:
    """Make the image of one finding.

    Args:
        source: the DICOM file that was scored.
        row: its row.
        picture: the heat map with the notice in it, uint8 [H, W, 3], RGB.
        finding: name of the finding.
        rank: 1 for the most probable finding; it becomes the Instance Number.
        made: date and time of the image, for Content Date and Time.
    """
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    image = SCImage.from_ref_dataset(
        source.reference(),
        picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom requires one; replaced below by that of the file, or none
        series_instance_uid=source.uid(row.engine, "capture series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.uid(row.engine, "capture", VERSION, finding, str(rank), pixels),
        instance_number=rank,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=VERSION,
        device_serial_number=row.engine,
        series_description=f"{MAKER} heat maps: {NOTICE}",
        content_qualification=ContentQualificationValues.RESEARCH,
        content_date=made.date(),
        content_time=made.time(),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    image.PatientOrientation = source.orientation
    image.Laterality = ""  # Type 2C: may be empty, and a chest has none (PS3.3 C.7.3.1)
    image.ConversionType = "WSD"  # workstation (PS3.3 C.8.6.1)
    image.DerivationDescription = f"Heat map of {finding}, engine {row.engine}. {NOTICE}"
    image.SourceImageSequence = [_source_item(source)]
    source.identify(image)
    return image


def _source_item(source: SourceImage) -> Dataset:
    """An item of Source Image Sequence (PS3.3 C.12.4, General Reference Module)."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.values["SOPClassUID"]
    item.ReferencedSOPInstanceUID = source.values["SOPInstanceUID"]
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(SOURCE_IMAGE)]
    return item
