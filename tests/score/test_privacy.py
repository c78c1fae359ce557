"""What DICOM says of a patient stays in the file: no output of a run holds any of it, not even of a damaged file."""

import io
import os
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing

import pyarrow.parquet as pq
import pytest
from cheap_engine import cheap_graph
from pydicom import dcmread
from pydicom.tag import Tag
from seeds import content, dataset

MARK = "Zebrafish"  # stands in every attribute that speaks of a person or a place
TEXTS = {
    "PatientName": f"{MARK}^Jane",
    "PatientID": f"{MARK}-1",
    "IssuerOfPatientID": MARK,
    "OtherPatientIDs": MARK,
    "OtherPatientNames": MARK,
    "PatientAddress": MARK,
    "PatientMotherBirthName": MARK,
    "PatientTelephoneNumbers": MARK,
    "PatientComments": MARK,
    "AccessionNumber": MARK,
    "StudyID": MARK,
    "StudyDescription": MARK,
    "SeriesDescription": MARK,
    "ProtocolName": MARK,
    "InstitutionName": MARK,
    "InstitutionAddress": MARK,
    "ReferringPhysicianName": MARK,
    "PerformingPhysicianName": MARK,
    "OperatorsName": MARK,
    "StationName": MARK,
    "DeviceSerialNumber": MARK,
    "ImageComments": MARK,
    "RequestedProcedureDescription": MARK,
}
DATE = "19451231"
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
UIDS = {"StudyInstanceUID": "1.2.8017.1", "SeriesInstanceUID": "1.2.8017.2"}
DESCRIPTION = ("PhotometricInterpretation", "VOILUTFunction", "Modality", "BodyPartExamined", "ViewPosition")


def person(**elements):
    return dataset(**{**TEXTS, **dict.fromkeys(DATES, DATE), **elements})


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """Good files, files whose description holds the mark, and files damaged everywhere and every way."""
    folder = tmp_path_factory.mktemp("xrays")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom does not like what is written here
        write_files(folder)
    return folder


def write_files(folder):
    whole = content(person(Modality="DX", BodyPartExamined="CHEST"))
    (folder / "good.dcm").write_bytes(whole)
    for name, value in (
        ("named", f"{MARK}^Jane"),
        ("single", MARK),
    ):  # highdicom quotes a name of one part in a warning
        (folder / f"{name}.dcm").write_bytes(content(person(**UIDS, PatientName=value, PatientSex="F")))
    (folder / "refused.dcm").write_bytes(content(person(**UIDS, PatientSex=MARK)))
    for name in DESCRIPTION:
        (folder / f"{name}.dcm").write_bytes(content(person(**{name: MARK})))
    for name in ("WindowWidth", "WindowCenter", "RescaleSlope", "NumberOfFrames"):
        made = content(person(**{name: "123456"}))
        (folder / f"{name}.dcm").write_bytes(made.replace(b"123456", MARK.encode()[:6]))
    for i, at in enumerate(range(140, len(whole), 61)):
        (folder / f"cut{i:03}.dcm").write_bytes(whole[:at])
        (folder / f"zero{i:03}.dcm").write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
    shifted = whole.replace(MARK.encode(), MARK.encode()[:-1], 1)  # from here on, values are read as elements
    (folder / "shifted.dcm").write_bytes(shifted)


def written_forms(word):
    """As text, as the list of its bytes, and in hexadecimal: whatever an error message makes of a value."""
    plain = word.encode()
    yield from (plain[:6], plain[:6].hex().encode(), " ".join(f"{b:02x}" for b in plain[:6]).encode())
    yield from (" ".join(f"0x{b:02x}" for b in plain[:3]).encode(), str(Tag(plain[0] | plain[1] << 8, 0))[:5].encode())


def test_nothing_about_a_patient_reaches_any_output_but_dicom_results(xrays, cheap_bundle, tmp_path, tmp_path_factory):
    outputs = []
    results = tmp_path_factory.mktemp("results") / "dicom"
    for output, options in (("a.csv", []), ("a.parquet", ["--dicom-results", results])):
        command = [sys.executable, "-m", "cxr_trt", "score", xrays, "-e", cheap_bundle, "-o", tmp_path / output]
        process = subprocess.run(
            [*command, "--heatmaps", tmp_path / output[2:], "--table", *options], capture_output=True
        )
        assert process.returncode == 1, process.stderr
        outputs += [process.stdout, process.stderr]
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert sum(row["error"] is None for row in rows) > 3  # neither all good nor all bad
    assert len({row["error"] for row in rows}) > 4
    assert len(list(tmp_path.rglob("*.png"))) > 6
    outputs.append(repr(rows).encode())
    for journal in tmp_path.glob("*.journal"):
        with closing(sqlite3.connect(journal)) as database:
            outputs += ["\n".join(database.iterdump()).encode()]
    outputs += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    everything = b"\n".join(outputs).lower()
    assert b"no dicom result for refused.dcm: " in everything
    for word in (MARK, DATE, "^Jane", *UIDS.values()):
        for form in written_forms(word):
            assert form.lower() not in everything, form
    check_results(results)


def check_results(folder):
    """What was asked for is there, and nothing of the rest that speaks of a person or a place."""
    made = [dcmread(path) for path in folder.rglob("*.dcm") if path.is_file()]
    assert len(made) == 2 * 4
    for result in made:
        assert MARK in str(result.PatientName)
        assert result.PatientID == f"{MARK}-1"
        assert result.StudyInstanceUID == UIDS["StudyInstanceUID"]
        marked = {element.keyword for element in result.iterall() if MARK in str(element.value)}
        assert marked == {"PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName"}


def test_the_marks_would_be_found(xrays):
    """The test above can fail: pydicom's own words for one of these files hold the mark."""
    with warnings.catch_warnings(), pytest.raises(ValueError, match=MARK[:6]):
        warnings.simplefilter("ignore")
        int(dcmread(io.BytesIO((xrays / "NumberOfFrames.dcm").read_bytes())).get("NumberOfFrames"))


LISTEN = """
import sys
def listen(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "os.fork"):
        sys.stderr.write(f"{event} {arguments}\\n")
sys.addaudithook(listen)
from cxr_trt.cli import main
main(sys.argv[1:])
"""


def test_nothing_is_sent_anywhere(xrays, tmp_path):
    """ONNX Runtime and OpenVINO by themselves would: they leave a number for the user in HOME, and OpenVINO forks."""
    cheap_graph().save(tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    silent = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    for arguments in (
        ["doctor"],
        ["build-engine", tmp_path / "model.onnx", "-o", tmp_path / "e.cxr", "--backend", "openvino"],
        ["score", xrays / "good.dcm", "-e", tmp_path / "e.cxr", "-o", tmp_path / "a.csv"],
    ):
        process = subprocess.run(
            [sys.executable, "-c", LISTEN, *map(str, arguments)],
            env={**environment, "HOME": str(home)},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        assert "socket" not in process.stderr
        assert "os.fork" not in process.stderr
        assert not list(home.iterdir())
