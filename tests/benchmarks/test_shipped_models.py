"""The study of the two shipped networks: its ratios, and a run of it."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import __main__, shipped_models
from benchmarks.study import RESULTS

SECONDS = {
    "onnxruntime, ten-crop, fp32": {"edge": [0.2, 0.1, 0.3], "paper": [2.0, 1.8, 1.5]},
    "openvino, ten-crop, fp32": {"edge": [0.2, 0.2, 0.2], "paper": [1.0, 1.6, 0.6]},
    "openvino, center, fp32": {"edge": [0.01] * 3, "paper": [0.02] * 3},
}


def test_ratios_are_those_of_each_round():
    text = shipped_models.page({"rounds": 3, "megabytes": {"edge": 7.6, "paper": 16.9}, "seconds": SECONDS})
    assert "| onnxruntime, ten-crop, fp32 | 200 | 1800 | 10.0 |" in text
    assert "edge takes 200 ms per X-ray and paper 1000 ms: it is 5.0\ntimes as fast" in text  # paper at its best
    localization = json.loads((RESULTS / "localization.json").read_text())["methods"]
    assert f"{localization['edge, ten crops']['mean']['pointing']['value']:.2f} (" in text


def test_a_slower_edge_is_a_problem():
    assert shipped_models.problems({"seconds": SECONDS}) == []
    (sentence,) = shipped_models.problems({"seconds": {"openvino, ten-crop, fp32": {"edge": [1.0], "paper": [4.0]}}})
    assert "edge is 4.0 times as fast as paper, not 5 times" in sentence


@pytest.mark.slow
@pytest.mark.long
def test_the_study_times_both(tmp_path):
    arguments = ["shipped-models", "--rounds", "1", "--output", str(tmp_path)]
    result = CliRunner().invoke(__main__.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    seconds = json.loads((tmp_path / "shipped-models.json").read_text())["seconds"]
    assert {"openvino, ten-crop, fp32", "onnxruntime, center, fp32"} <= set(seconds)
    assert all(len(values) == 1 for own in seconds.values() for values in own.values())
