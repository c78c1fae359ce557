"""The structured report: the probabilities of the findings (Enhanced SR, PS3.3 A.35.2; TID 1500, PS3.16)."""

import datetime
from collections.abc import Sequence

import numpy as np
from highdicom import ContentQualificationValues
from highdicom.sr import (
    AlgorithmIdentification,
    CoordinatesForMeasurement,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    GraphicTypeValues,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from cxr_trt.results.dicom.codes import (
    COMMENT,
    NO_UNITS,
    PRIVATE_SCHEME,
    PROBABILITY,
    PROCEDURE,
    finding_code,
)
from cxr_trt.results.dicom.source import MAKER, VERSION, SourceImage
from cxr_trt.tables.rows import NOTICE, Row

SERIES_NUMBER = 9001  # above the numbers that modalities give


def structured_report(source: SourceImage, row: Row, findings: Sequence[str], made: datetime.datetime) -> EnhancedSR:
    """Make the report of a scored file.

    It has a measurement group (TID 1501) per finding: the finding's code, the algorithm with version and engine
    fingerprint (TID 4019), the probability as NUM without units (TID 300), and the image that was measured. The notice
    and the row's warnings are comments at the root, an extension that TID 1500 allows. The report is complete, not
    verified and preliminary (PS3.3 C.17.2); its content is qualified as RESEARCH (PS3.3 C.12.1).

    It has an Image Library (TID 1600), and each NUM is inferred from coordinates, the border of the image (TID 320),
    and has no other content item below it: OHIF fails on a report without the former when it opens the study, and on a
    measurement without such coordinates when it opens the report (3.11 to 3.13).

    Args:
        source: the DICOM file that was scored.
        row: its row, with probabilities.
        findings: names of the findings, in the order of the probabilities.
        made: date and time of the report, for Content Date and Time.
    """
    assert row.probabilities is not None  # noqa: S101
    content = repr((row.probabilities, row.warnings, VERSION, row.sha256))
    reference = source.reference()
    engine = AlgorithmIdentification(
        name=MAKER, version=VERSION, parameters=[f"engine fingerprint {row.engine}"], manufacturer=MAKER
    )
    listed = source.reference()
    listed.Rows, listed.Columns = row.height, row.width
    listed.Modality = "OT"  # for others, highdicom wants orientation and spacing (TID 1603), which files may lack
    image = SourceImageForMeasurementGroup(reference.SOPClassUID, reference.SOPInstanceUID)
    whole_image = _whole_image(source, row)
    groups = [
        MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(source.uid(row.engine, finding), finding),
            finding_type=finding_code(finding),
            algorithm_id=engine,
            measurements=[Measurement(PROBABILITY, probability, NO_UNITS, referenced_coordinates=[whole_image])],
            source_images=[image],
        )
        for finding, probability in zip(findings, row.probabilities, strict=True)
    ]
    for finding, group in zip(findings, groups, strict=True):
        group[0].ContentSequence.append(_comment(finding))  # which OHIF shows beside the number, but no codes
    device = DeviceObserverIdentifyingAttributes(
        uid=source.uid(row.engine, "device"),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=MAKER,
        serial_number=row.engine,
    )
    measured = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, observer_identifying_attributes=device)
        ),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
        referenced_images=[listed],
    )
    measured[0].ContentSequence.extend(_comment(text) for text in (NOTICE, *row.warnings))

    report = EnhancedSR(
        evidence=[reference],
        content=measured[0],
        series_instance_uid=source.uid(row.engine, "report series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=source.uid(row.engine, "report", content),
        instance_number=1,
        is_complete=True,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=VERSION,
        device_serial_number=row.engine,
        series_description=f"{MAKER} report: {NOTICE}",
        content_qualification=ContentQualificationValues.RESEARCH,
        coding_schemes=[PRIVATE_SCHEME],
        content_date=made.date(),
        content_time=made.time(),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    source.identify(report)
    return report


def _comment(text: str) -> TextContentItem:
    return TextContentItem(COMMENT, text, relationship_type=RelationshipTypeValues.CONTAINS)


def _whole_image(source: SourceImage, row: Row) -> CoordinatesForMeasurement:
    """The border of the image that was scored, as a closed polyline in pixels (PS3.3 C.18.6)."""
    assert row.width is not None  # noqa: S101
    assert row.height is not None  # noqa: S101
    corners = [[0, 0], [row.width, 0], [row.width, row.height], [0, row.height], [0, 0]]
    reference = source.reference()
    image = SourceImageForRegion(reference.SOPClassUID, reference.SOPInstanceUID)
    return CoordinatesForMeasurement(GraphicTypeValues.POLYLINE, np.array(corners, np.float64), image)
