"""The convolutional parts of torchvision's ImageNet networks, without their classifiers and with their parameter names.

They are torchvision's, not Caffe's, which early papers used: its AlexNet has neither local response normalisation nor
groups, its GoogLeNet has batch norm, and its ResNet-50 has its strides in the 3x3 convolutions.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models

from cxr_trt.model.imagenet import IMAGENET_MEAN, IMAGENET_STD

GOOGLENET_MEAN = GOOGLENET_STD = 0.5  # of all channels, with which torchvision's weights were trained


class Backbone(NamedTuple):
    """features: crops [N, 3, H, W], with ImageNet's mean and deviation, to [N, channels, h, w]."""

    features: nn.Sequential
    channels: int


def alexnet() -> Backbone:
    """A cell is 32 pixels, but the borders have none: 13 x 13 cells of 448 pixels, 31 x 31 of 1,024."""
    return Backbone(models.alexnet(weights=None).features, 256)


def densenet121() -> Backbone:
    """Without the ReLU after its last norm; stride 32."""
    return Backbone(models.densenet121(weights=None).features, 1024)


def googlenet() -> Backbone:
    """Without the auxiliary classifiers; stride 32."""
    network = models.googlenet(weights=None, aux_logits=False, init_weights=True)
    layers = _without(network, "avgpool", "dropout", "fc")
    return Backbone(nn.Sequential(OrderedDict(normalisation=_GoogLeNetNormalisation(), **layers)), 1024)


def resnet50() -> Backbone:
    """Stride 32."""
    return Backbone(nn.Sequential(OrderedDict(_without(models.resnet50(weights=None), "avgpool", "fc"))), 2048)


def vgg16() -> Backbone:
    """Without batch norm; stride 32."""
    return Backbone(models.vgg16(weights=None).features, 512)


BACKBONES = {
    "alexnet": alexnet,
    "densenet121": densenet121,
    "googlenet": googlenet,
    "resnet50": resnet50,
    "vgg16": vgg16,
}
"""Each with random weights."""


def _without(network: nn.Module, *names: str) -> dict[str, nn.Module]:
    """The layers of a network that calls them in order, but for some."""
    return {name: layer for name, layer in network.named_children() if name not in names}


class _GoogLeNetNormalisation(nn.Module):
    """From ImageNet's mean and deviation to GoogLeNet's, as torchvision's `transform_input` does."""

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", std / GOOGLENET_STD, persistent=False)
        self.register_buffer("shift", (mean - GOOGLENET_MEAN) / GOOGLENET_STD, persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        return crops * self.scale + self.shift
