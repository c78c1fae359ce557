"""The study of students: its page, and a run of it."""

import json

import click
import pytest
from click.testing import CliRunner

from benchmarks import __main__, distillation

RECIPE = {"setting": "edge", "teacher": 0.5, "epochs": 3, "crop_size": 256, "image_size": 288}


def test_the_page_says_whether_a_difference_is_more_than_chance():
    def student(setting, low):
        area = {"a": 0.70, "b": 0.72, "difference": 0.02, "low": low, "high": 0.03}
        return {"training": {"epoch": 2, "recipe": {**RECIPE, "setting": setting}}, "val": area, "test": area}

    students = [student("edge", 0.01), student("paper", -0.01)]
    images = {"train": 1868, "val": 319, "test": 870}
    text = distillation.page({"teachers": "two of edge", "images": images, "resamples": 5, "students": students})
    assert "Teaching edge changes its AUC on the test X-rays by +0.020, which is more than chance." in text
    assert "Teaching paper changes its AUC on the test X-rays by +0.020, which cannot be told from none." in text
    row = "| 0.7000 | 0.7200 | +0.0200 (+0.0100 to +0.0300) "
    assert f"| `edge` | 0.5 | 256 of 288 | 2 of 3 {2 * row}|" in text
    assert "trained on 1,868 X-rays" in text
    assert "The teachers here:\ntwo of edge." in text


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a network `edge` with random weights that says how it was trained."""
    pytest.importorskip("timm", reason="needs pip install timm")
    save = pytest.importorskip("cxr_trt.model.checkpoint", reason="needs pip install 'cxr-trt[export]'").save_checkpoint
    from cxr_trt.systems.edge import EDGE

    def write(**fields):
        training = {"epoch": 2, "recipe": {**RECIPE, **fields}}
        path = tmp_path / "student.safetensors"
        save(EDGE.build("edge"), path, weights="trained", setting="edge", sizes=(288, 256), training=training)
        return path

    return write


def test_a_checkpoint_without_a_teacher_is_refused(checkpoint):
    with pytest.raises(click.UsageError, match="was trained without a teacher"):
        distillation._training(checkpoint(teacher=0.0))


@pytest.mark.slow
def test_a_student_is_held_against_what_is_shipped(checkpoint, cxr14, tmp_path):
    trial = [
        "--student",
        checkpoint(),
        "--teachers",
        "edge",
        "--data",
        cxr14,
        "--limit",
        24,
        "--resamples",
        20,
        "--output",
        tmp_path,
    ]
    done = CliRunner().invoke(__main__.main, ["distillation", *map(str, trial)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "distillation.json").read_text())
    assert (result["images"]["val"], result["images"]["test"]) == (24, 24)
    (own,) = result["students"]
    for split in ("val", "test"):
        assert own[split]["difference"] == pytest.approx(own[split]["b"] - own[split]["a"])
        assert own[split]["a"] != own[split]["b"]
