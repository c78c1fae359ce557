"""Scoring pairs of X-rays: by a table, and by the study in the headers of DICOM files."""

import csv

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper
from pydicom import dcmread
from pydicom.uid import generate_uid

from cxr_trt.errors import UsageError
from cxr_trt.export.builder import GraphBuilder
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.findings import FINDINGS
from cxr_trt.images.load import load_images
from cxr_trt.precision.calibration_images import choose_images
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.views import Size

SIDE = 64
SPEC = Specification(
    views="whole",
    image_size=Size(2 * SIDE, SIDE),
    crop_size=Size(2 * SIDE, SIDE),
    pooling=None,
    maps="none",
    planes=2,
)


def pair_graph():
    """Logits of finding i: the mean grey of the upper half times i + 1, less twice that of the lower half."""
    builder = GraphBuilder({})
    pixels = builder.node("Cast", ["images"], "pixels", to=TensorProto.FLOAT)
    grey = builder.node("Div", [pixels, builder.constant("white", 255.0, np.float32)], "grey")
    halves = builder.reshape(grey, "halves", [-1, 2, SIDE * SIDE])
    means = builder.node("ReduceMean", [halves, builder.constant("last", [2], np.int64)], "means", keepdims=0)
    weights = builder.constant("weights", [[i + 1.0 for i in range(14)], [-2.0] * 14], np.float32)
    builder.node("Sigmoid", [builder.node("MatMul", [means, weights], "logits")], "probabilities")
    model = builder.model(
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, 2 * SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 14])],
        [],
        {"": 18},
        GraphInfo.of_this_version(SPEC, "trained", "0" * 64).to_metadata(),
    )
    return ScoringGraph(model, GraphInfo.of_this_version(SPEC, "trained", "0" * 64))


@pytest.fixture(scope="module")
def bundle(build):
    return build(pair_graph(), "onnxruntime", max_batch=2)


def rows_of(path):
    with path.open(newline="") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def scores(row):
    return [float(row[finding]) for finding in FINDINGS]


def expected(frontal, lateral):
    means = [load_images([path], SIDE).mean() / 255 for path in (frontal, lateral)]
    logits = means[0] * np.arange(1, 15) - 2 * means[1]
    return 1 / (1 + np.exp(-logits))


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for number, level in enumerate((60, 90, 120, 150, 180)):
        noise = rng.integers(-40, 40, (80, 70))
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.clip(level + noise, 0, 255).astype(np.uint8))
    return tmp_path


def test_a_table_names_pairs(cli, bundle, pictures):
    (pictures / "pairs.csv").write_text(
        "study,frontal,lateral\na,0.png,1.png\nb,3.png,2.png\nc,4.png,\nd,2.png,no.png\n"
    )
    result = cli("score", "--pairs", pictures / "pairs.csv", "-e", bundle, "-o", pictures / "s.csv")
    assert result.exit_code == 1, result.output
    rows = rows_of(pictures / "s.csv")
    assert list(rows) == ["0.png", "3.png", "4.png", "2.png"]
    for frontal, lateral in (("0.png", "1.png"), ("3.png", "2.png")):
        assert not rows[frontal]["error"]
        assert scores(rows[frontal]) == pytest.approx(expected(pictures / frontal, pictures / lateral), abs=1e-5)
    assert (rows["0.png"]["width"], rows["0.png"]["height"]) == ("70", "80")
    assert rows["4.png"]["error"] == "its study has no lateral X-ray in the table of pairs"
    assert rows["2.png"]["error"].startswith("its lateral X-ray no.png: not a regular file")
    assert not any(rows[name][finding] for name in ("4.png", "2.png") for finding in FINDINGS)

    (pictures / "pairs.csv").write_text("frontal,lateral\n1.png,0.png\n")
    assert cli("score", "--pairs", pictures / "pairs.csv", "-e", bundle, "-o", pictures / "swapped.csv").exit_code == 0
    swapped = scores(rows_of(pictures / "swapped.csv")["1.png"])
    assert swapped == pytest.approx(expected(pictures / "1.png", pictures / "0.png"), abs=1e-5)
    assert swapped != pytest.approx(scores(rows["0.png"]), abs=1e-3)


def test_a_study_is_scored_again_if_either_file_changed(cli, bundle, pictures):
    (pictures / "pairs.csv").write_text("frontal,lateral\n0.png,1.png\n2.png,3.png\n")
    command = ("score", "--pairs", pictures / "pairs.csv", "-e", bundle, "-o", pictures / "s.csv")
    assert "(" not in cli(*command).stderr.partition("scored 2 of 2 files")[2].split(",")[0]
    assert "scored 2 of 2 files (2 of them in an earlier run)" in cli(*command).stderr
    before = rows_of(pictures / "s.csv")
    (pictures / "1.png").write_bytes((pictures / "4.png").read_bytes())
    assert "scored 2 of 2 files (1 of them in an earlier run)" in cli(*command).stderr
    after = rows_of(pictures / "s.csv")
    assert after["2.png"] == before["2.png"]
    assert scores(after["0.png"]) == pytest.approx(expected(pictures / "0.png", pictures / "4.png"), abs=1e-5)


@pytest.fixture
def studies(tmp_path, radiographs):
    """DICOM files of five studies, and a PNG."""
    folder = tmp_path / "studies"
    folder.mkdir()
    uids = {}
    for name, study, view in (
        ("a-front.dcm", "a", "PA"),
        ("a-side.dcm", "a", "LL"),
        ("b-front.dcm", "b", "AP"),
        ("c-side.dcm", "c", "LATERAL"),
        ("d-front.dcm", "d", "PA"),
        ("d-front2.dcm", "d", "AP"),
        ("d-side.dcm", "d", "RL"),
        ("e-oblique.dcm", "e", "LLO"),
        ("z-front.dcm", "z", "PA"),
        ("y-side.dcm", "z", "LATERAL"),
    ):
        dataset = dcmread(radiographs / ("RG3_UNCR.dcm" if "side" in name else "RG1_UNCR.dcm"))
        dataset.StudyInstanceUID = uids.setdefault(study, generate_uid())
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.ViewPosition = view
        dataset.save_as(folder / name)
    cv2.imwrite(str(folder / "f.png"), np.full((80, 80), 90, np.uint8))
    return folder, uids


def test_dicom_files_are_paired_by_their_study(cli, bundle, studies, tmp_path):
    folder, uids = studies
    result = cli("score", folder, "-e", bundle, "-o", tmp_path / "s.csv")
    assert result.exit_code == 1, result.output
    rows = rows_of(tmp_path / "s.csv")
    assert {name for name, row in rows.items() if not row["error"]} == {"a-front.dcm", "z-front.dcm"}
    for frontal, lateral in (("a-front.dcm", "a-side.dcm"), ("z-front.dcm", "y-side.dcm")):
        assert scores(rows[frontal]) == pytest.approx(expected(folder / frontal, folder / lateral), abs=1e-5)
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert errors["b-front.dcm"] == "its study has no lateral X-ray among these files"
    assert errors["c-side.dcm"] == "its study has no frontal X-ray among these files"
    for name in ("d-front.dcm", "d-front2.dcm", "d-side.dcm"):
        assert errors[name].startswith("its study has 2 frontal X-rays and 1 lateral X-ray; name the pair")
    assert errors["e-oblique.dcm"].startswith("its ViewPosition is none of PA, AP, LL, RL, LATERAL;")
    assert errors["f.png"].startswith("not a DICOM file, so its study is not known;")
    assert len(errors) == 7
    written = (tmp_path / "s.csv").read_text() + result.output
    assert not any(uid in written for uid in uids.values())
    assert "does not look like" not in rows["a-front.dcm"]["warnings"]  # the lateral X-ray is a leg's


def test_a_file_without_a_study_is_an_error_row(cli, bundle, radiographs, tmp_path):
    dataset = dcmread(radiographs / "RG1_UNCR.dcm")
    del dataset.StudyInstanceUID
    dataset.save_as(tmp_path / "x.dcm")
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "x.dcm").read_bytes()[:2000])
    result = cli("score", tmp_path, "-e", bundle, "-o", tmp_path / "s.csv")
    assert result.exit_code == 2
    assert "x.dcm: its header has no StudyInstanceUID; name the pair in a table with --pairs" in result.stderr
    assert "broken.dcm: " in result.stderr


def test_what_does_not_fit_is_refused_in_one_sentence(cli, bundle, cheap_bundle, pictures):
    table = pictures / "pairs.csv"
    table.write_text("frontal,lateral\n0.png,1.png\n")
    one = cli("score", "--pairs", table, "-e", cheap_bundle, "-o", pictures / "one.csv")
    assert (one.exit_code, "sees one X-ray at a time; leave out --pairs" in one.stderr) == (2, True)
    both = cli("score", pictures, "--pairs", table, "-e", bundle)
    assert (both.exit_code, "--pairs names the files itself" in both.stderr) == (2, True)
    for option in (("--uids",), ("--append",)):
        refused = cli("score", "--pairs", table, "-e", bundle, "-o", pictures / "o.csv", *option)
        assert (refused.exit_code, "sees two X-rays of a study at once; leave out" in refused.stderr) == (2, True)
    for content, sentence in (
        ("image,lateral\n0.png,1.png\n", "has no column frontal; a row names"),
        ("frontal,lateral\n", "has no row; a row names"),
        ("frontal,lateral\n,1.png\n", "a row has no frontal X-ray"),
        ("frontal,lateral\n0.png,1.png\n0.png,2.png\n", "0.png is in 2 rows"),
    ):
        table.write_text(content)
        refused = cli("score", "--pairs", table, "-e", bundle)
        assert (refused.exit_code, sentence in refused.stderr) == (2, True), refused.stderr
    assert "no such table of pairs" in cli("score", "--pairs", pictures / "no.csv", "-e", bundle).stderr
    with Engine(bundle) as engine, pytest.raises(UsageError, match="sees 2 X-rays of a study at once"):
        list(engine.score(pictures))
    with pytest.raises(UsageError, match="calibration cannot pair files yet"):
        choose_images([pictures], 16, 0, SPEC, labels=None, exclude=None)
