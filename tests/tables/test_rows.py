from cxr_trt.calibrate.calibration import Calibration
from cxr_trt.findings import is_reserved
from cxr_trt.tables.rows import columns, findings_of
from cxr_trt.tables.writing import all_columns

FINDINGS = ("Lung Opacity", "Format of the heart")


def test_the_findings_of_a_table_stand_between_format_and_warnings():
    calibration = Calibration("e", "platt", "youden", 0, FINDINGS, {}, {})
    assert findings_of(columns(FINDINGS)) == FINDINGS
    assert findings_of(all_columns(FINDINGS, calibration)) == FINDINGS
    assert findings_of(("site", *all_columns(FINDINGS, calibration), "age")) == FINDINGS


def test_in_another_table_all_columns_but_those_of_ours_are_findings():
    calibration = Calibration("e", "platt", "youden", 0, FINDINGS, {}, {})
    others = [name for name in all_columns(FINDINGS, calibration) if name not in FINDINGS]
    assert all(map(is_reserved, others))
    assert findings_of(["", "path", *FINDINGS, "image", "patient_id", "error"]) == FINDINGS
