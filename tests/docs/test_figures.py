"""Figures in running text are those of the committed results."""

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
