"""Class activation maps against their definition."""

import numpy as np
import pytest
import torch
from torch import nn

from cxr_trt.model.class_activation import ClassActivationNetwork
from cxr_trt.model.global_pooling import AveragePool, LsePool, MaxPool


def small_network(pool):
    torch.manual_seed(0)
    return ClassActivationNetwork(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), pool, 8)


@pytest.mark.parametrize("pool", [AveragePool(), MaxPool(), LsePool(10)], ids=["average", "max", "lse"])
def test_outputs_are_predicted_from_pooled_activations_and_maps_from_all_of_them(pool):
    network = small_network(pool)
    crops = torch.randn(2, 3, 12, 10)
    outputs, maps = network.outputs_and_maps(crops)
    activations = torch.relu(network.features(crops)).detach()
    weight, bias = (value.detach().numpy() for value in (network.prediction.weight, network.prediction.bias))
    np.testing.assert_allclose(maps.detach(), np.einsum("kc,nchw->nkhw", weight, activations.numpy()), atol=1e-6)
    np.testing.assert_allclose(outputs.detach(), pool(activations).numpy() @ weight.T + bias, rtol=1e-5, atol=1e-6)


def test_with_average_pooling_the_mean_of_a_map_is_the_logit_without_its_bias():
    network = small_network(AveragePool())
    outputs, maps = network.outputs_and_maps(torch.randn(2, 3, 12, 10))
    torch.testing.assert_close(maps.mean((2, 3)), outputs - network.prediction.bias)
