"""From scores to a calibrated table, with the commands that a user gives."""

import csv
import json
import subprocess
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle

from cxr_trt.calibrate.calibration import CALIBRATION_FILE
from cxr_trt.evaluate.reliability import calibration_error
from cxr_trt.findings import FINDINGS
from cxr_trt.tables.rows import columns

COUNT = 60


@pytest.fixture
def call(cli):
    def call(*arguments, code=0):
        result = cli(*arguments)
        assert result.exit_code == code, result.output
        return result

    return call


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def here(call, tmp_path, monkeypatch):
    """Pictures of rising grey, which is what the engine scores, and labels that go with it; Hernia occurs twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xrays").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        noise = rng.integers(0, 40, (64, 64))
        cv2.imwrite(f"xrays/{i:02}.png", (noise + 3 * i).astype(np.uint8))
        labels = (rng.random(14) < 0.1 + 0.6 * i / COUNT).astype(int)
        labels[13] = i > COUNT - 3
        rows.append([f"{i:02}.png", *labels])
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", *FINDINGS], *rows])
    build_cheap_bundle(tmp_path / "e.cxr")
    call("score", "xrays", "-o", "s.csv", "--workers", 1)
    return tmp_path


def test_rows_without_labels_are_counted_and_no_error(call, here):
    lines = (here / "labels.csv").read_text().splitlines()
    (here / "labels.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert "1 row of SCORES left out: not in LABELS" in call("calibrate", "s.csv", "labels.csv", "-e", "e.cxr").stderr


def test_from_scores_to_a_calibrated_table(call, here):
    before = read(here / "s.csv")
    result = call("calibrate", "s.csv", "labels.csv", "-e", "e.cxr", "--specificity", 0.8)
    assert "not fitted: Hernia: 2 positives, and a fit needs 10" in result.stderr
    assert "13 of 14 findings on 60 images, platt; thresholds for specificity 0.8" in result.stderr
    assert "13 of 14 findings on 60 images" in call("inspect", "e.cxr").stdout

    result = call("score", "xrays", "-o", "s.csv", "--workers", 1)  # nothing is scored again
    assert f"{COUNT} of them in an earlier run" in result.stderr
    after = read(here / "s.csv")
    assert [[row[name] for name in columns(FINDINGS)] for row in after] == [list(row.values()) for row in before]
    calibration = json.loads((here / "e.cxr" / CALIBRATION_FILE).read_text())
    assert {row["calibration"] for row in after} == {result.stderr.split("calibration ")[1][:16]}
    threshold = calibration["fits"]["Mass"]["threshold"]["score"]
    for row in after:
        assert row["Mass_positive"] == ("yes" if np.float32(row["Mass"]) >= threshold else "no")
        assert 0 < float(row["Mass_calibrated"]) < 1
        assert row["Hernia_calibrated"] == row["Hernia_positive"] == ""

    call("score", "xrays", "-o", "s.parquet", "--workers", 1)
    for row, expected in zip(read(here / "s.parquet"), after, strict=True):
        assert row["Mass_calibrated"] == np.float32(expected["Mass_calibrated"])
        assert (row["Mass_positive"], row["Hernia_calibrated"]) == (expected["Mass_positive"], None)
    piped = subprocess.run([sys.executable, "-m", "cxr_trt", "score", "xrays"], capture_output=True, text=True)
    assert piped.stdout == (here / "s.csv").read_text()


def test_the_error_falls_and_is_drawn(call, here):
    pytest.importorskip("matplotlib", reason="needs pip install 'cxr-trt[plots]'")
    evaluate = ("evaluate", "s.csv", "labels.csv", "--resamples", 0, "--overwrite")
    result = call(*evaluate, "--reliability", "raw.png")
    assert "| Mass | " in result.stdout
    assert "not fitted" in result.stdout
    call("calibrate", "s.csv", "labels.csv", "-e", "e.cxr")
    call("score", "xrays", "-o", "s.csv", "--workers", 1)
    call(*evaluate, "--reliability", "r.png", "--json", "r.json")
    result = json.loads((here / "r.json").read_text())["calibration"]
    assert result["fitted"] == 13
    assert result["mean_after"] < 0.5 * result["mean_before"]
    rows, truth = read(here / "s.csv"), read(here / "labels.csv")
    labels = np.array([row["Mass"] == "1" for row in truth])
    called = np.array([row["Mass_positive"] == "yes" for row in rows])
    mass = result["findings"]["Mass"]
    after = calibration_error(np.array([float(row["Mass_calibrated"]) for row in rows]), labels)
    assert mass["after"] == pytest.approx(after)
    assert (mass["sensitivity"], mass["specificity"]) == (called[labels].mean(), (~called)[~labels].mean())
    assert result["findings"]["Hernia"]["after"] is None
    assert cv2.imread("r.png").std() > 10


def test_what_does_not_fit_is_refused(call, here):
    calibrate = ("calibrate", "s.csv", "labels.csv", "-e", "e.cxr")
    assert "exclude each other" in call(*calibrate, "--sensitivity", 0.9, "--specificity", 0.9, code=2).stderr
    text = (here / "s.csv").read_text()
    header, first, *rest = text.splitlines()
    (here / "s.csv").write_text("\n".join((header, first[:-1] + "x", *rest)))
    assert "was made by engine" in call(*calibrate, code=2).stderr
    (here / "s.csv").write_text("\n".join(line.rpartition(",")[0] for line in text.splitlines()))
    assert "has no column engine" in call(*calibrate, code=2).stderr
    (here / "s.csv").write_text("\n".join((header, first.replace(",0.", ",1.", 1), *rest)))
    assert "above 1; calibration needs probabilities" in call(*calibrate, code=2).stderr
    (here / "s.csv").write_text("\n".join((header, *rest[:12])))
    assert "no finding can be fitted" in call(*calibrate, code=2).stderr
    assert not (here / "e.cxr" / CALIBRATION_FILE).exists()
    (here / "s.csv").write_text(text)
    call(*calibrate)
    assert "add --overwrite" in call(*calibrate, code=2).stderr
    call(*calibrate, "--overwrite", "--method", "isotonic")
    assert json.loads((here / "e.cxr" / CALIBRATION_FILE).read_text())["method"] == "isotonic"


def test_the_calibration_error_by_hand():
    labels = np.array([True, False, False, True])
    assert calibration_error(np.array([0.15, 0.11, 0.9, 1.0]), labels) == pytest.approx(
        (2 * abs(0.13 - 0.5) + 2 * abs(0.95 - 0.5)) / 4
    )
