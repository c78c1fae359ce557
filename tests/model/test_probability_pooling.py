"""Pooling of cells' probabilities (Li et al. 2018, Yao et al. 2018) against the formulas in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")

from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits, interpolate  # noqa: E402

from cxr_trt.errors import UsageError  # noqa: E402
from cxr_trt.model.patch_bags import PatchBags, PatchGrid  # noqa: E402
from cxr_trt.model.saliency_map import LowerBoundedLse  # noqa: E402
from cxr_trt.systems import find_system  # noqa: E402

RNG = np.random.default_rng(0)
LOGITS = {
    "random": RNG.normal(0, 3, (2, 14, 8, 8)),
    "rare": RNG.normal(-14, 2, (2, 14, 16, 16)),
    "common": RNG.normal(5, 1, (2, 14, 20, 20)),
    "certain": np.full((1, 14, 20, 20), 60.0),
    "one cell": np.where(np.arange(144).reshape(12, 12) == 40, 30.0, -30.0) + np.zeros((1, 14, 1, 1)),
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bag(z):
    """1 - p and p of the bag: the product of the factors 1 - 0.02 p_j over all patches, in float64."""
    logarithm = np.log1p(-0.02 * sigmoid(z)).sum((2, 3))
    return np.exp(logarithm), -np.expm1(logarithm)


@pytest.mark.parametrize("z", LOGITS.values(), ids=LOGITS)
def test_a_bag_is_positive_unless_all_its_patches_are_negative(z):
    logits = torch.from_numpy(z).float().requires_grad_()
    found = PatchBags()(logits)
    negative, positive = bag(z)
    np.testing.assert_allclose(torch.sigmoid(found).detach(), positive, rtol=3e-6)
    for label, p in ((0.0, negative), (1.0, positive)):
        losses = binary_cross_entropy_with_logits(found, torch.full_like(found, label), reduction="none")
        np.testing.assert_allclose(losses.detach(), -np.log(p), rtol=2e-5, atol=2e-6)


def test_the_gradient_of_a_negative_bag_is_that_of_the_products_logarithm():
    z = LOGITS["random"]
    logits = torch.from_numpy(z).float().requires_grad_()
    found = PatchBags()(logits)
    binary_cross_entropy_with_logits(found, torch.zeros_like(found), reduction="sum").backward()
    p = sigmoid(z)
    np.testing.assert_allclose(logits.grad, 0.02 * p * (1 - p) / (1 - 0.02 * p), rtol=1e-4, atol=1e-8)


def test_bags_far_out_give_finite_losses_and_gradients():
    for value in (-200.0, 200.0):
        logits = torch.full((1, 14, 20, 20), value, requires_grad=True)
        found = PatchBags()(logits)
        binary_cross_entropy_with_logits(found, torch.ones_like(found)).backward()
        assert torch.isfinite(found).all()
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("patches", "highest"), [(12, 0.945), (16, 0.994), (20, 0.9997)])
def test_squeezing_bounds_the_probability_of_a_bag(patches, highest):
    found = torch.sigmoid(PatchBags()(torch.full((1, 1, patches, patches), 50.0)))
    assert found.item() == pytest.approx(highest, abs=6e-4)
    assert found.item() == pytest.approx(1 - 0.98**patches**2, abs=1e-6)


@pytest.mark.parametrize(("cells", "patches"), [((16, 16), 12), ((16, 16), 16), ((7, 25), 12), ((24, 24), 12)])
def test_features_are_brought_to_the_grid(cells, patches):
    features = torch.randn(2, 3, *cells)
    found = PatchGrid(patches)(features)
    assert found.shape == (2, 3, patches, patches)
    expected = adaptive_max_pool2d(features, tuple(min(side, patches) for side in cells))
    expected = interpolate(expected, size=(patches, patches), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected)


def test_a_coarse_grid_is_refined_bilinearly():
    ramp = torch.arange(4.0)[None, None, :, None].expand(1, 1, 4, 4)
    found = PatchGrid(8)(ramp)[0, 0, :, 3]
    np.testing.assert_allclose(found, np.clip(np.arange(8) / 2 - 0.25, 0, 3), atol=1e-6)


def lse_lba(z, r):
    """log(mean(exp(r S))) / r over the cells' probabilities S, in float64; r is one number, or one per finding."""
    s, r = sigmoid(z).reshape(*z.shape[:2], -1), np.reshape(r, -1)
    return np.log(np.exp(r[:, None] * s).mean(2)) / r


@pytest.mark.parametrize("lower_bound", [0, 5, 10])
@pytest.mark.parametrize("z", LOGITS.values(), ids=LOGITS)
def test_lower_bounded_log_sum_exp_is_its_formula(z, lower_bound):
    pool = LowerBoundedLse(lower_bound)
    betas = np.linspace(-3, 3, 14)
    with torch.no_grad():
        pool.beta.copy_(torch.from_numpy(betas))
        found = torch.sigmoid(pool(torch.from_numpy(z).float()))
    r = lower_bound + np.exp(betas)
    expected = lse_lba(z, r).clip(1e-6, 1 - 1e-6)
    rounding = 2e-7 / np.minimum(r, 1)  # of the logarithm, which is divided by r
    assert (np.abs(found.numpy() - expected) <= 1e-4 * expected + rounding).all()


def test_the_learned_bound_has_the_gradient_of_its_formula():
    z, beta, step = LOGITS["random"], 0.7, 1e-5
    pool = LowerBoundedLse(5, 14)
    torch.nn.init.constant_(pool.beta, beta)
    torch.sigmoid(pool(torch.from_numpy(z).float())).sum().backward()
    by_difference = (lse_lba(z, 5 + np.exp(beta + step)) - lse_lba(z, 5 + np.exp(beta - step))).sum(0) / (2 * step)
    np.testing.assert_allclose(pool.beta.grad, by_difference, rtol=1e-3)


def test_without_a_bound_a_low_beta_gives_the_mean_and_a_high_one_the_maximum():
    z, pool = LOGITS["random"], LowerBoundedLse(0)
    for beta, expected in ((-5, sigmoid(z).mean((2, 3))), (8, sigmoid(z).max((2, 3)))):
        torch.nn.init.constant_(pool.beta, beta)
        found = torch.sigmoid(pool(torch.from_numpy(z).float())).detach()
        np.testing.assert_allclose(found, expected, atol=3e-3)


def test_one_saturated_cell_of_4096_scores_as_high_as_r_allows():
    z = torch.full((1, 1, 64, 64), -40.0)
    z[0, 0, 3, 5] = 40
    for r, p in ((6, 0.016), (11, 0.25), (30, 0.72)):
        pool = LowerBoundedLse(r - 1, 1)
        assert torch.sigmoid(pool(z)).item() == pytest.approx(p, abs=6e-3)


@pytest.mark.parametrize(("setting", "side"), [("yao2018-r0", 96), ("yao2017-a", 160), ("yao2017-b1", 64)])
def test_crops_that_do_not_fit_are_refused(setting, side):
    network = find_system(setting).build(setting)
    channels = len(find_system(setting).mean)
    with pytest.raises(UsageError, match="have sides that are multiples of"):
        network(torch.zeros(1, channels, side, side))


@pytest.mark.parametrize("bound", [-1.0, float("nan")])
def test_a_bound_below_0_is_refused(bound):
    with pytest.raises(UsageError, match="must be 0 or more"):
        LowerBoundedLse(bound)
