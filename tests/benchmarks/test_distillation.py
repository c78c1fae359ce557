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
    students[1]["training"]["recipe"] |= {"map_teacher": 1.0, "feature_teacher": 2.0}
    images = {"train": 1868, "val": 319, "test": 870}
    text = distillation.page({"teachers": "two of edge", "images": images, "resamples": 5, "students": students})
    assert "edge at 288 pixels differs by +0.020 on the validation X-rays, more than chance;" in text
    taught_inside = "paper at 288 pixels, taught maps and features too, differs by +0.020 on the validation X-rays"
    assert f"{taught_inside}, which chance can explain." in text
    row = "| 0.7000 | 0.7200 | +0.0200 (+0.0100 to +0.0300) "
    assert f"| `edge` | 0.5 | 0 | 0 | 256 of 288 | 2 of 3 {2 * row}|" in text
    assert f"| `paper` | 0.5 | 1 | 2 | 256 of 288 | 2 of 3 {2 * row.replace('+0.0100', '-0.0100')}|" in text
    assert "trained on 1,868 X-rays" in text
    assert "The teachers here: two of edge." in text


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a network `edge` with random weights that says how it was trained."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    pytest.importorskip("timm", reason="needs pip install timm")
    from cxr_trt.model.checkpoint import save_checkpoint
    from cxr_trt.systems.edge import EDGE

    def write(seed=0, **fields):
        torch.manual_seed(seed)
        training = {"epoch": 2, "recipe": {**RECIPE, **fields}}
        path = tmp_path / f"student{seed}.safetensors"
        save_checkpoint(
            EDGE.build("edge"), path, weights="trained", setting="edge", sizes=(288, 256), training=training
        )
        return path

    return write


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"teacher": 0.0}, "was trained without a teacher"), ({"setting": "no-se"}, "no network no-se is shipped")],
)
def test_other_checkpoints_are_refused(checkpoint, fields, sentence):
    with pytest.raises(click.UsageError, match=sentence):
        distillation._training(checkpoint(**fields))


@pytest.mark.slow
@pytest.mark.long
def test_students_are_held_against_what_is_shipped(checkpoint, cxr14, tmp_path):
    students = [part for seed in (0, 1) for part in ("--student", checkpoint(seed))]
    trial = [*students, "--teachers", "edge", "--data", cxr14, "--limit", 24, "--resamples", 20, "--output", tmp_path]
    done = CliRunner().invoke(__main__.main, ["distillation", *map(str, trial)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "distillation.json").read_text())
    assert (result["images"]["val"], result["images"]["test"]) == (24, 24)
    for split in ("val", "test"):
        first, second = (own[split] for own in result["students"])
        assert first["a"] == second["a"]
        assert first["b"] != second["b"]
        assert first["difference"] == pytest.approx(first["b"] - first["a"])
