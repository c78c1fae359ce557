"""The study of the AUC with int8 features: its page, what it refuses, and a run of it."""

import json

import pytest
from click.testing import CliRunner

from benchmarks import __main__, parity_cpu, parity_features
from cxr_trt.precision import planning


def result_with(difference):
    def engine(value):
        mean = {"b": 0.65 + value, "difference": value, "low": value - 0.001, "high": value + 0.001}
        auc = {"mean": mean, "largest": {"finding": "Mass", "difference": 2 * value}}
        return {"auc": auc, "largest_difference_of_a_probability": abs(value)}

    engines = {parity_features.REFERENCE: engine(0.0), parity_features.IN_INT8: engine(difference)}
    return {"images": 870, "calibration_images": 256, "engines": engines}


def test_the_page_and_what_is_refused():
    text = parity_features.page(result_with(-0.002))
    assert "The mean AUC less float32's: -0.00200 in int8, features in int8." in text
    assert "| int8, features in int8 | 0.6480 | -0.00200 | -0.00300 to -0.00100 | -0.00400 (Mass) | 2.0e-03 |" in text
    assert parity_features.problems(result_with(-0.002)) == []
    (problem,) = parity_features.problems(result_with(0.004))
    assert problem.startswith("int8, features in int8: the mean AUC differs from float32's by +0.00400")


@pytest.mark.slow
@pytest.mark.long
def test_engines_are_held_against_float32(cxr14, tmp_path, monkeypatch):
    monkeypatch.setattr(parity_cpu, "CALIBRATION_IMAGES", 16)
    monkeypatch.setattr(planning, "MAX_SCANNED_IMAGES", 1)
    monkeypatch.setitem(parity_features.ALLOWED, "int8", 1.0)  # an AUC of 12 images moves by much
    trial = ["--folder", tmp_path / "kept", "--data", cxr14, "--images", 12, "--output", tmp_path]
    done = CliRunner().invoke(__main__.main, ["parity-features", *map(str, trial)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    engines = json.loads((tmp_path / "parity-features.json").read_text())["engines"]
    moved = {name: own["largest_difference_of_a_probability"] for name, own in engines.items()}
    assert moved["fp32"] == 0
    assert 0 < moved[parity_features.IN_INT8] != moved[parity_features.IN_FLOAT] > 0
