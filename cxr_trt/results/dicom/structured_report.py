"""The structured report: the probabilities of the findings (Enhanced SR, PS3.3 A.35.2; TID 1500, PS3.16)."""

import datetime
from collections.abc import Sequence

from highdicom import ContentQualificationValues
from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
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

    It has an Image Library (TID 1600), and each NUM names its algorithm, because versions of OHIF before 2026 fail on a
    report without the one and on a NUM without content items below it.

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
    groups = [
        MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(source.uid(row.engine, finding), finding),
            finding_type=finding_code(finding),
            algorithm_id=engine,
            measurements=[Measurement(PROBABILITY, probability, NO_UNITS, algorithm_id=engine)],
            source_images=[image],
        )
        for finding, probability in zip(findings, row.probabilities, strict=True)
    ]
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
    comments = [
        TextContentItem(COMMENT, text, relationship_type=RelationshipTypeValues.CONTAINS)
        for text in (NOTICE, *row.warnings)
    ]
    measured[0].ContentSequence.extend(comments)

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
