"""Figures in running text are those of the committed results."""

import csv
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_heat_maps_cost():
    result = json.loads((ROOT / "benchmarks" / "results" / "heatmaps.json").read_text())["RG1_UNCR.dcm"]
    added = {way: values["added, %"] for way, values in result["seconds an X-ray"].items()}
    text = " ".join((ROOT / "docs" / "reading-the-numbers.md").read_text().split())
    assert f"took {added['three highest']} % of the time" in text
    assert f"{added['three highest, full size']} % in full size" in text
    assert f"on {result['date'][:10]} at commit {result['commit']}" in text


def test_what_the_reliability_diagram_shows(cxr14):
    result = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text())
    text = " ".join((ROOT / "docs" / "reading-the-numbers.md").read_text().split())
    calibration = result["calibration"]
    assert f"mean calibration error of its {calibration['fitted']} findings" in text
    assert f"from {calibration['mean_before']:.3f} to {calibration['mean_after']:.3f}" in text
    with (cxr14 / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    count, effusions = {}, {}
    for split in ("val", "test"):
        own = [row["Effusion"] == "1" for row in rows if row["split"] == split]
        count[split], effusions[split] = len(own), 100 * sum(own) / len(own)
    assert f"{count['val']} validation images" in text
    assert f"{count['test']} test images" in text
    assert f"(effusion: {effusions['test']:.1f} % and {effusions['val']:.1f} %)" in text
