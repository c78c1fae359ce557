"""The commands from a checkpoint to a table of scores, and what they say of mistakes."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.tables.rows import columns
from cxr_trt.views import Size

COMMAND = [sys.executable, "-m", "cxr_trt"]


def cxr_trt(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def rows_of(path):
    with path.open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def xrays(tmp_path_factory, radiographs):
    """Two good files of three, one of them in a subfolder under the same stem, and a text file."""
    folder = tmp_path_factory.mktemp("xrays")
    (folder / "more").mkdir()
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")
    ramp = np.tile(np.linspace(0, 255, 600).astype(np.uint8), (500, 1))
    cv2.imwrite(str(folder / "more" / "chest.png"), ramp)
    (folder / "broken.png").write_bytes((folder / "more" / "chest.png").read_bytes()[:100])
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def scored(xrays, center_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    arguments = ["-e", center_bundle, "-o", out / "scores.csv", "--heatmaps", out / "maps", "--top", 2, "--table"]
    return cxr_trt("score", xrays, *arguments), out


def test_a_broken_file_costs_one_row_and_exit_code_1(scored):
    process, out = scored
    assert process.returncode == 1
    rows = rows_of(out / "scores.csv")
    assert list(rows) == ["broken.png", "chest.dcm", "more/chest.png"]
    assert all(tuple(row) == columns(FINDINGS) for row in rows.values())
    assert rows["broken.png"]["error"]
    assert rows["broken.png"]["Mass"] == ""
    assert (rows["chest.dcm"]["width"], rows["chest.dcm"]["height"], rows["chest.dcm"]["format"]) == (
        "1841",
        "1955",
        "DICOM",
    )
    assert (rows["more/chest.png"]["width"], rows["more/chest.png"]["height"]) == ("600", "500")
    assert all(0 <= float(rows["chest.dcm"][finding]) <= 1 for finding in FINDINGS)
    assert rows["chest.dcm"]["error"] == ""
    assert sorted(path.name for path in out.iterdir()) == [
        ".scores.csv.lock",
        "maps",
        "scores.csv",
        "scores.csv.journal",
    ]


def test_dicom_objects_without_an_image_are_skipped_and_counted(xrays, center_bundle, radiographs, tmp_path):
    """A CD also holds a DICOMDIR, reports and presentation states: no rows, and exit code 0."""
    folder = tmp_path / "cd"
    folder.mkdir()
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")
    for name, sop_class in (
        ("DICOMDIR", pydicom.uid.MediaStorageDirectoryStorage),
        ("report", pydicom.uid.EnhancedSRStorage),
        ("state.dcm", pydicom.uid.GrayscaleSoftcopyPresentationStateStorage),
    ):
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, pydicom.uid.generate_uid()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.save_as(folder / name, enforce_file_format=True)
    process = cxr_trt("score", folder, "-e", center_bundle, "-o", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    assert process.returncode == 0, process.stderr
    assert list(rows_of(tmp_path / "s.csv")) == ["chest.dcm"]
    summary = json.loads((tmp_path / "s.json").read_text())
    kinds = {"DICOM directories (DICOMDIR)": 1, "structured reports": 1, "presentation states": 1}
    assert (summary["scored"], summary["failed"], summary["skipped"]) == (1, 0, kinds)
    for kind in kinds:
        assert f"{kind} (1)" in process.stderr


def test_messages_say_what_happened(scored):
    process, out = scored
    assert "scored 2 of 3 files" in process.stderr
    assert "skipped, not X-rays: .txt files (1)" in process.stderr
    assert "broken.png: the" in process.stderr
    assert "warning: untrained model" in process.stderr
    assert "Research use only" in process.stdout
    assert "untrained" in rows_of(out / "scores.csv")["chest.dcm"]["warnings"]


def test_heat_maps_are_keyed_by_path(scored):
    _, out = scored
    pictures = sorted(path.relative_to(out / "maps") for path in (out / "maps").rglob("?-*.png"))
    assert [str(path.parent) for path in pictures] == ["chest.dcm", "chest.dcm", "more/chest.png", "more/chest.png"]
    row = rows_of(out / "scores.csv")["chest.dcm"]
    highest = max(FINDINGS, key=lambda finding: float(row[finding]))
    assert pictures[0].name == f"1-{highest}.png"
    height = len(cv2.imread(str(out / "maps" / pictures[0])))
    assert 768 < height < 870  # RG1 is 1841 x 1955 pixels, its picture 768 high, and the frame


def test_parquet_csv_and_standard_output_hold_the_same(cli, xrays, center_bundle, tmp_path, scored):
    assert cli("score", xrays, "-e", center_bundle, "-o", tmp_path / "scores.parquet").exit_code == 1
    table = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    piped = cxr_trt("score", xrays, "-e", center_bundle, cwd=tmp_path)
    assert piped.stdout == (scored[1] / "scores.csv").read_text()
    for row, expected in zip(table, csv.DictReader(piped.stdout.splitlines()), strict=True):
        for name in columns(FINDINGS):
            value = "" if row[name] is None else str(np.float32(row[name])) if name in FINDINGS else str(row[name])
            assert value == expected[name], name


def test_the_only_bundle_here_is_the_default(cli, xrays, cheap_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cheap_bundle, tmp_path / "engine.cxr")
    result = cli("score", xrays / "chest.dcm", "-o", "a.csv")
    assert result.exit_code == 0, result.stderr
    shutil.copytree(cheap_bundle, tmp_path / "other.cxr")
    result = cli("score", xrays / "chest.dcm", "-o", "a.csv")
    assert result.exit_code == 2
    assert "There are 2 .cxr folders here; name one with --engine" in result.stderr


def test_encodings_of_one_radiograph_score_alike(cli, radiographs, center_bundle, tmp_path):
    files = [radiographs / "RG1_UNCR.dcm", radiographs / "RG1_J2KR.dcm"]
    assert cli("score", *files, "-e", center_bundle, "-o", tmp_path / "a.csv").exit_code == 0
    a, b = rows_of(tmp_path / "a.csv").values()
    for finding in FINDINGS:
        assert abs(float(a[finding]) - float(b[finding])) <= 1e-6


def test_originals_of_chestxray14(cli, cxr14, center_bundle, tmp_path):
    result = cli("score", cxr14 / "originals", "-e", center_bundle, "-o", tmp_path / "a.csv")
    assert result.exit_code == 0, result.stderr
    rows = rows_of(tmp_path / "a.csv")
    assert len(rows) == 16
    assert not any(row["error"] for row in rows.values())


@pytest.mark.parametrize(
    ("redirection", "code", "sentence"),
    [
        (">/dev/full", 2, "standard output: No space left on device"),
        (">&-", 2, "standard output is closed"),
        ("| head -c 10", 0, "scoring 1 file"),
    ],
)
def test_standard_output_that_takes_nothing(xrays, cheap_bundle, redirection, code, sentence):
    command = f"{sys.executable} -m cxr_trt score {xrays}/chest.dcm -e {cheap_bundle} {redirection}"
    process = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert process.returncode == code
    assert sentence in process.stderr
    assert "Traceback" not in process.stderr


@pytest.fixture
def here(tmp_path, cheap_bundle, xrays, monkeypatch):
    """The current folder, with everything that MISTAKES names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cheap_bundle, tmp_path / "e.cxr")
    shutil.copytree(xrays, tmp_path / "xrays")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"")
    (tmp_path / "file.txt").write_text("precious")
    (tmp_path / "empty.csv").mkdir()
    (tmp_path / "old.csv.journal").write_text("precious")
    (tmp_path / "scores.csv").write_text("precious")
    (tmp_path / "model.onnx").write_bytes(b"rubbish")
    (tmp_path / "model.pt").write_bytes(b"rubbish")
    return tmp_path


MISTAKES = {
    "score none -e e.cxr": "none: no such file or folder",
    "score empty -e e.cxr": "no DICOM, PNG, JPEG or TIFF file",
    "score broken -e e.cxr -o scores.csv --overwrite": "none of the 1 file could be scored",
    "score xrays -e e.cxr -o scores.csv": "add --overwrite",
    "score xrays -e e.cxr -o file.txt/scores.csv": "file.txt: cannot be made",
    "score xrays -e e.cxr -o /proc/scores.csv": "/proc",
    "build-engine e.cxr -o /proc/new.cxr": "/proc",
    "score xrays -e e.cxr --heatmaps file.txt": "file.txt: cannot be made",
    "score xrays -e e.cxr -o scores.txt": "must end in .csv or .parquet",
    "score xrays -e e.cxr -o empty.csv": "empty.csv is a folder",
    "score xrays -e e.cxr -o old.csv": "old.csv.journal: not a journal (file is not a database); add --fresh",
    "score xrays -e e.cxr --heatmaps xrays/maps": "lies in xrays",
    "score xrays -e e.cxr --heatmaps broken": "broken is not empty",
    "export model.pt -o empty.csv": "must end in .onnx",
    "build-engine e.cxr/manifest.json -o new.cxr": "not a checkpoint",
    "score xrays -e none.cxr": "none.cxr: no such bundle",
    "score xrays -e none.onnx": "none.onnx: no such bundle; build one: `cxr-trt build-engine MODEL -o none.cxr`",
    "score xrays -e empty": "not an engine bundle",
    "score xrays -e e.cxr --top 0": "0 is not in the range",
    "score xrays -e e.cxr --colour": "No such option",
    "--colour score xrays": "No such option '--colour'; see `",
    "build-engine none.onnx -o new.cxr": "ONNX file or bundle, and no shipped network (edge or paper)",
    "build-engine model.onnx -o new.cxr": "not a valid ONNX model",
    "build-engine model.pt -o new.cxr --setting paper": "not a plain state dict",
    "build-engine e.cxr -o e.cxr": "add --overwrite",
    "build-engine e.cxr -o xrays --overwrite": "not an engine bundle",
    "build-engine e.cxr -o new.cxr --views sideways": "'sideways' is not one of",
    "build-engine e.cxr -o new.cxr --setting paper": "build from the checkpoint instead",
    "build-engine e.cxr -o new.cxr --backend coreml": "'coreml' is not one of",
    "export none.pt -o new.onnx": "no such checkpoint file",
    "export model.pt -o model.onnx": "add --overwrite",
    "inspect none.cxr": "no such bundle",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_code_2(cli, here, arguments):
    if ".pt" in arguments:
        pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    result = cli(*arguments.split())
    assert result.exit_code == 2, result.exception
    assert MISTAKES[arguments] in result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
    after = {path: path.read_bytes() for path in here.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert before == after


def test_inspect_shows_what_a_bundle_is(cli, center_bundle):
    inspected = cli("inspect", center_bundle)
    assert inspected.exit_code == 0
    assert "untrained" in inspected.stdout
    assert cli("inspect", center_bundle, "--json").stdout == (center_bundle / "manifest.json").read_text()


def test_from_checkpoint_to_scores(cli, network, xrays, tmp_path, monkeypatch):
    from cxr_trt.model.checkpoint import save_checkpoint

    monkeypatch.chdir(tmp_path)
    save_checkpoint(network, tmp_path / "w.safetensors", weights="trained")
    chest = xrays / "chest.dcm"
    exported = cli("export", "w.safetensors", "-o", "m.onnx", "--views", "center", "--images", chest)
    assert exported.exit_code == 0, exported.stderr
    assert "agrees with PyTorch on 3 images" in exported.stderr
    rows = []
    for source, bundle, backend in (("m.onnx", "a.cxr", "onnxruntime"), ("a.cxr", "b.cxr", "openvino")):
        built = cli("build-engine", source, "-o", bundle, "--backend", backend, "--no-tune")
        assert built.exit_code == 0, built.stderr
        result = cli("score", chest, "-e", bundle, "-o", f"{backend}.csv")
        assert result.exit_code == 0, result.stderr
        rows += rows_of(tmp_path / f"{backend}.csv").values()
    a, b = rows
    assert a["warnings"] == b["warnings"] == ""
    assert a["engine"] != b["engine"]
    assert all(abs(float(a[finding]) - float(b[finding])) <= 1e-5 for finding in FINDINGS)


def test_a_checkpoint_of_another_resolution_is_scored_at_its_own(cli, network, tmp_path):
    from cxr_trt.model.checkpoint import save_checkpoint

    save_checkpoint(network, tmp_path / "small.safetensors", weights="trained", sizes=(144, 128))
    result = cli("export", tmp_path / "small.safetensors", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 0, result.stderr
    spec = ScoringGraph.load(tmp_path / "m.onnx").spec
    assert (spec.image_size, spec.crop_size) == (Size.square(144), Size.square(128))
    assert spec.class_map_parts == (4, 4)


def test_weights_that_are_not_finite_are_not_exported(cli, network, tmp_path):
    import torch

    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    weights["features.conv0.weight"][0] = torch.nan
    torch.save(weights, tmp_path / "nan.pt")
    result = cli("export", tmp_path / "nan.pt", "--setting", "paper", "--views", "center", "-o", tmp_path / "m.onnx")
    assert result.exit_code == 2, result.exception
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "m.onnx").exists()
