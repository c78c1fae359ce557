"""Each part of the network against its equation, written out in NumPy; and the whole against torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import densenet121

from cxr_trt.errors import UsageError
from cxr_trt.model.network import MaxMinPool, MultiMapTransfer, Network, SqueezeExcitation
from cxr_trt.model.settings import SETTINGS, ModelSettings


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_squeeze_excitation_is_equations_1_to_3():
    torch.manual_seed(0)
    layer = SqueezeExcitation(32).double()
    u = torch.randn(2, 32, 5, 7, dtype=torch.float64)
    w1, w2 = layer.squeeze.weight.detach().numpy(), layer.excite.weight.detach().numpy()
    assert w1.shape == (2, 32)
    z = u.numpy().mean((2, 3))
    s = np.stack([sigmoid(w2 @ np.maximum(w1 @ z[n], 0)) for n in range(2)])
    np.testing.assert_allclose(layer(u).detach().numpy(), s[:, :, None, None] * u.numpy(), rtol=1e-12)


def test_multi_map_transfer_averages_m_neighbouring_maps():
    torch.manual_seed(0)
    layer = MultiMapTransfer(channels=6, findings=3, maps_per_finding=4).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    weight, bias = layer.conv.weight.detach().numpy()[:, :, 0, 0], layer.conv.bias.detach().numpy()
    maps = np.einsum("oc,nchw->nohw", weight, x.numpy()) + bias[:, None, None]
    expected = np.stack([maps[:, 4 * c : 4 * c + 4].mean(1) for c in range(3)], 1)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_max_min_pool_is_equation_4(data):
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    k_max, k_min = (data.draw(st.integers(1, height * width)) for _ in range(2))
    alpha = data.draw(st.sampled_from([0.0, 0.7, 1.0, -0.5]))
    values = data.draw(st.lists(st.integers(-4, 4), min_size=2 * height * width, max_size=2 * height * width))  # ties
    maps = np.array(values, np.float64).reshape(1, 2, height, width)
    ascending = np.sort(maps.reshape(1, 2, -1), axis=2)
    expected = ascending[:, :, -k_max:].mean(2) + alpha * ascending[:, :, :k_min].mean(2)
    np.testing.assert_allclose(MaxMinPool(k_max, k_min, alpha)(torch.from_numpy(maps)).numpy(), expected, atol=1e-12)


def test_more_cells_than_a_map_has_are_refused():
    with pytest.raises(UsageError, match="at most 4"):
        MaxMinPool(5, 1, 0.7)(torch.zeros(1, 14, 2, 2))


@pytest.mark.parametrize("field", ["k_max", "k_min", "maps_per_finding"])
def test_settings_below_one_are_refused(field):
    with pytest.raises(UsageError, match=field):
        ModelSettings(**{field: 0})


def randomise(module):
    """Random weights and batch statistics: the defaults (mean 0, variance 1) would hide a norm that is left out."""
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and "norm" in name:
            tensor.normal_(0.3, 0.2)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    reference = densenet121(weights=None).eval()
    randomise(reference)
    return reference


def run(network, reference, crops):
    own = network.state_dict()
    own.update({key: value for key, value in reference.state_dict().items() if key in own})
    network.load_state_dict(own)
    with torch.inference_mode():
        return network.eval()(crops).numpy()


@pytest.mark.parametrize("name", ["chexnet", "no-se"])
def test_without_gates_the_backbone_is_torchvisions(backbone, name):
    setting, crops = SETTINGS[name], torch.randn(1, 3, 96, 64)
    network = Network(setting)
    scores = run(network, backbone, crops)
    with torch.inference_mode():
        features = torch.relu(backbone.features(crops)).numpy()
    weight, bias = (
        network.transfer.conv.weight.detach().numpy()[:, :, 0, 0],
        network.transfer.conv.bias.detach().numpy(),
    )
    maps = np.einsum("oc,nchw->nohw", weight, features) + bias[:, None, None]
    maps = maps.reshape(1, 14, setting.maps_per_finding, -1).mean(2)
    assert maps.shape[2] == 3 * 2  # stride 32
    np.testing.assert_allclose(scores, maps.max(2) + setting.alpha * maps.min(2), rtol=1e-4, atol=1e-5)


def test_gates_scale_what_each_transitions_convolution_gives(backbone):
    """Gates of sigmoid(0) = 1/2 everywhere do what halving the three convolutions does."""
    crops, network = torch.randn(1, 3, 64, 64), Network(SETTINGS["max-only"])
    for i in (1, 2, 3):
        torch.nn.init.zeros_(network.get_submodule(f"features.transition{i}.se.excite").weight)
    gated = run(network, backbone, crops)
    halved, plain = densenet121(weights=None), Network(ModelSettings(squeeze_excitation=False, alpha=0.0))
    halved.load_state_dict(backbone.state_dict())
    for i in (1, 2, 3):
        halved.get_submodule(f"features.transition{i}.conv").weight.data *= 0.5
    plain.transfer.load_state_dict(network.transfer.state_dict())
    np.testing.assert_allclose(gated, run(plain, halved, crops), rtol=1e-5, atol=1e-6)
    assert list(dict(network.features.transition1.named_children())) == ["norm", "relu", "conv", "se", "pool"]


def test_the_five_settings_differ_as_the_paper_says():
    def shape(name):
        weights = Network(SETTINGS[name]).state_dict()
        gates = sum(".se." in key for key in weights)
        return gates, weights["transfer.conv.weight"].shape[0], SETTINGS[name].alpha

    assert {name: shape(name) for name in SETTINGS} == {
        "paper": (6, 168, 0.7),
        "chexnet": (0, 14, 0.0),
        "no-se": (0, 168, 0.7),
        "single-map": (6, 14, 0.7),
        "max-only": (6, 168, 0.0),
    }
