"""Class maps that must not depend on where a crop is cut."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[train]'")

from cxr_trt.errors import UsageError  # noqa: E402
from cxr_trt.model.network import Network, PooledMapsNetwork  # noqa: E402
from cxr_trt.model.settings import SETTINGS  # noqa: E402
from cxr_trt.spec import Pooling  # noqa: E402
from train.auxiliary import AuxiliaryHead  # noqa: E402
from train.batches import Batch  # noqa: E402
from train.group import Group  # noqa: E402
from train.objective import Objective, equivariance_loss  # noqa: E402
from train.recipe import read_recipe  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class MeansAndRows(torch.nn.Module):
    """Cells of 32 pixels: their mean grey, and `slope` times their row."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, crops):
        means = torch.nn.functional.avg_pool2d(crops, 32)
        return means + self.slope * torch.arange(means.shape[2])[:, None]


def network(slope):
    """Its maps are the features."""
    made = PooledMapsNetwork(MeansAndRows(slope), 1, 1, Pooling(1, 1, 0.7), findings=1)
    torch.nn.init.ones_(made.transfer.conv.weight)
    torch.nn.init.zeros_(made.transfer.conv.bias)
    return made.requires_grad_(False)


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (3.0, 1.5)])
def test_it_is_what_a_map_owes_to_the_place_in_the_crop(slope, expected):
    """Cut at the top, all rows move by one; cut at the bottom, none: on average half a row."""
    crops = torch.rand(4, 1, 96, 128, generator=torch.Generator().manual_seed(0))
    own = network(slope)
    assert float(equivariance_loss(own, crops, own.class_maps(crops))) == pytest.approx(expected, abs=1e-6)


def test_a_single_crop_is_enough():
    crops = torch.rand(1, 1, 64, 64)
    own = network(0.0)
    assert float(equivariance_loss(own, crops, own.class_maps(crops))) == 0


@pytest.mark.parametrize("auxiliary", [0.0, 0.2])
def test_a_recipe_weighs_it(auxiliary):
    torch.manual_seed(0)
    recipe = dataclasses.replace(read_recipe("paper"), auxiliary=auxiliary)
    own, head = Network(SETTINGS["paper"]).eval(), AuxiliaryHead(1024) if auxiliary else None
    labels = np.zeros((2, 14), np.uint8)
    crops = torch.randint(0, 256, (2, 96, 96), dtype=torch.uint8)
    batch = Batch(crops, torch.from_numpy(labels).float(), torch.zeros(2, 3))
    with Group("cpu") as group, torch.no_grad():
        objective, plain = (
            Objective(dataclasses.replace(recipe, equivariance=weight), own, head, labels, group)
            for weight in (0.5, 0.0)
        )
        loss, further = objective.losses(batch, None)
        loss_without, further_without = plain.losses(batch, None)
        pixels = objective._normalised(crops)
        expected = equivariance_loss(own, pixels, own.class_maps(pixels))
    assert float(expected) > 0
    torch.testing.assert_close(further - further_without, 0.5 * expected)
    torch.testing.assert_close(loss, loss_without)


def test_only_networks_that_pool_their_maps_learn_it():
    with pytest.raises(UsageError, match="equivariance works with networks that pool their class maps only"):
        dataclasses.replace(read_recipe("yao2018"), equivariance=1.0)
