"""Global pooling against its equations in float64, and what becomes of it at its limits."""

import numpy as np
import pytest
import torch

from cxr_trt.errors import UsageError
from cxr_trt.model.global_pooling import AveragePool, LsePool, MaxPool


def log_sum_exp(maps, r):
    """Wang et al. 2017, eq. 3, for maps [N, C, H, W] in float64."""
    scaled = r * maps.reshape(*maps.shape[:2], -1)
    highest = scaled.max(2)
    return (highest + np.log(np.exp(scaled - highest[:, :, None]).mean(2))) / r


RANDOM = np.random.default_rng(0).normal(0, 3, (2, 3, 5, 7))
MAPS = {
    "random": RANDOM,
    "large": 1e4 * RANDOM,
    "negative throughout": -20 - np.abs(RANDOM),
    "far below zero": -1e4 - np.abs(RANDOM),
    "equal": np.full((1, 2, 7, 7), -20.0),
    "one cell": RANDOM[:, :, :1, :1],
    "one high cell": np.where(np.arange(35).reshape(5, 7) == 17, 50.0, 0.0)[None, None],
}


@pytest.mark.parametrize("r", [0.1, 0.5, 1, 5, 8, 10, 12])
@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_log_sum_exp_is_equation_3(maps, r):
    found = LsePool(r)(torch.from_numpy(maps).float())
    np.testing.assert_allclose(found, log_sum_exp(maps, r), rtol=2e-6, atol=2e-6)


def test_log_sum_exp_lies_between_the_average_and_the_maximum():
    maps = torch.from_numpy(RANDOM).float()
    average, highest = AveragePool()(maps), MaxPool()(maps)
    np.testing.assert_allclose(average, RANDOM.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(highest, RANDOM.max((2, 3)), rtol=1e-6)
    assert (average < LsePool(1)(maps)).all()
    assert (LsePool(1)(maps) < LsePool(10)(maps)).all()
    np.testing.assert_allclose(LsePool(1e-3)(maps), average, atol=0.01)
    np.testing.assert_allclose(LsePool(1e4)(maps), highest, atol=1e-3)


@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_the_gradient_of_log_sum_exp_is_the_softmax_of_the_scaled_cells(maps):
    values = torch.from_numpy(maps).float().requires_grad_()
    LsePool(10)(values).sum().backward()
    scaled = 10 * values.detach().double().flatten(2)
    np.testing.assert_allclose(values.grad.flatten(2), scaled.softmax(2), atol=2e-5)


def test_log_sum_exp_is_computed_in_float32_within_lower_precision():
    maps = torch.from_numpy(RANDOM).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = LsePool(10)(maps)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, log_sum_exp(maps.double().numpy(), 10), rtol=2e-6)


@pytest.mark.parametrize("r", [0, -1.0, float("nan")])
def test_an_r_that_is_not_above_zero_is_refused(r):
    with pytest.raises(UsageError, match="it must be above 0"):
        LsePool(r)
