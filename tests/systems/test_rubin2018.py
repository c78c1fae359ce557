"""DualNet: its equation in NumPy, what each X-ray adds, and what its graph and specification say."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from torch import nn  # noqa: E402

from cxr_trt.errors import GraphError, UsageError  # noqa: E402
from cxr_trt.model.dual_network import DualNetwork  # noqa: E402
from cxr_trt.spec import Specification  # noqa: E402
from cxr_trt.systems.rubin2018 import RUBIN2018  # noqa: E402
from cxr_trt.views import Size  # noqa: E402
from train.augment import Augmentation  # noqa: E402
from train.batches import LabelledImages  # noqa: E402
from train.recipe import read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE, CHANNELS = 32, 6


def backbone():
    return nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 2, 1), nn.BatchNorm2d(CHANNELS))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DualNetwork(backbone(), backbone(), CHANNELS).eval()


@pytest.fixture
def pairs():
    return torch.randn(3, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_logits_are_linear_in_the_concatenated_averages_of_both_xrays(network, pairs):
    with torch.inference_mode():
        found = network(pairs).numpy()
        outputs = [
            own(plane).double().numpy()
            for own, plane in ((network.frontal, pairs[:, :, :SIDE]), (network.lateral, pairs[:, :, SIDE:]))
        ]
    pooled = np.concatenate([np.maximum(output, 0).mean((2, 3)) for output in outputs], 1)
    weights, bias = (value.detach().double().numpy() for value in network.prediction.parameters())
    np.testing.assert_allclose(found, pooled @ weights.T + bias, rtol=0, atol=1e-5)


def test_without_the_weights_of_the_lateral_xray_it_is_the_frontal_network(network, pairs):
    with torch.inference_mode():
        network.prediction.weight[:, CHANNELS:] = 0
        pooled = torch.relu(network.frontal(pairs[:, :, :SIDE])).mean((2, 3))
        frontal = nn.functional.linear(pooled, network.prediction.weight[:, :CHANNELS], network.prediction.bias)
        np.testing.assert_allclose(network(pairs).numpy(), frontal.numpy(), rtol=0, atol=1e-6)


def test_swapping_the_xrays_changes_the_scores(network, pairs):
    with torch.inference_mode():
        swapped = torch.cat([pairs[:, :, SIDE:], pairs[:, :, :SIDE]], 2)
        assert (network(pairs) - network(swapped)).abs().min() > 1e-4


def test_a_training_crop_is_the_frontal_xray_above_the_lateral_one():
    rng = np.random.default_rng(0)
    frontal, lateral = rng.integers(0, 256, (2, 8, SIDE, SIDE), np.uint8)
    images = LabelledImages(frontal, np.zeros((8, 14), np.uint8), np.zeros((8, 3), np.float32), SIDE, [lateral])
    rows = np.arange(8)
    (batch,) = images.validation(rows, 8)
    np.testing.assert_array_equal(batch.crops.numpy(), np.concatenate([frontal, lateral], 1))
    (batch,) = images.training(rows, 8, augmentation=Augmentation(), seed=0, epoch=0, start=0)
    stacked = {pair.tobytes() for pair in np.concatenate([frontal, lateral], 1)}
    crops = batch.crops.numpy()
    mirrored = [crop.tobytes() not in stacked for crop in crops]
    upright = [crop[:, ::-1] if mirror else crop for crop, mirror in zip(crops, mirrored, strict=True)]
    assert {crop.tobytes() for crop in upright} == stacked
    assert 0 < sum(mirrored) < 8


def test_a_specification_says_how_large_each_xray_is():
    sizes = {"image_size": Size(128, 64), "crop_size": Size(128, 64), "pooling": None, "maps": "none"}
    spec = Specification(views="whole", planes=2, **sizes)
    assert spec.plane_size == Size.square(64)
    assert Specification.from_mapping(spec.to_mapping()) == spec
    with pytest.raises(GraphError, match="2 X-rays are stacked to a whole image"):
        Specification(views="center", planes=2, **sizes)
    for planes in (0, 3, "2"):
        with pytest.raises(GraphError, match="that no network of this project has"):
            Specification.from_mapping({**spec.to_mapping(), "planes": planes})


def test_crops_of_pairs_are_refused():
    recipe = vars(read_recipe("rubin2018"))
    with pytest.raises(UsageError, match="dualnet sees whole images"):
        type(read_recipe("rubin2018"))(**{**recipe, "crop_size": 448})
    assert RUBIN2018.planes == 2
