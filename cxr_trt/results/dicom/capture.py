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

SERIES = 9002  # Series Number, after the report's


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
        source: of the row.
        row: that was scored.
        picture: uint8 [H, W, 3], RGB, with the notice in it.
        finding: its name.
        rank: 1 for the most probable finding; becomes Instance Number.
        made: becomes Content Date and Time.
    """
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    image = SCImage.from_ref_dataset(
        source.reference(),
        picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom wants one; the file's own, or none, takes its place below
        series_instance_uid=source.uid(row.engine, "capture series"),
        series_number=SERIES,
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
    image.Laterality = ""  # Type 2C; of no use for a chest, and empty is allowed (PS3.3 C.7.3.1)
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
