"""Networks of the systems with random weights in which every layer matters, small enough for tests: needs PyTorch."""

from typing import TYPE_CHECKING

import pytest

LAST_LAYERS = ("prediction", "fusion")  # of the networks here, which are linear

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cxr_trt.model.two_pass import TwoPassNetwork


def settle(network: "nn.Module", crops: "Tensor") -> None:
    """Let batch norms take the statistics of these crops, give their weights values that matter, and logits about 1."""
    import torch

    with torch.inference_mode():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(crops)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.1
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
    network.eval()
    with torch.no_grad():
        scale = network(crops).std()
        for name in LAST_LAYERS:
            for weights in getattr(network, name).parameters() if hasattr(network, name) else ():
                weights /= scale


def small_two_pass(channels: int = 3) -> "TwoPassNetwork":
    """AG-CNN on five convolutions; 7 x 7 cells of 56 pixels."""
    torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from torch import nn

    from cxr_trt.model.two_pass import Branch, TwoPassNetwork

    def features() -> nn.Sequential:
        layers: list[nn.Module] = []
        for before, after, stride in ((channels, 16, 2), (16, 32, 2), (32, 32, 1), (32, 48, 2), (48, 48, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    torch.manual_seed(1)
    network = TwoPassNetwork(Branch(features(), 48), Branch(features(), 48))
    settle(network, torch.randn(8, channels, 56, 56))
    return network
