"""DenseNet-121 with squeeze-and-excitation, a multi-map transfer layer and max-min pooling (paper, sec. 3).

Parameters have torchvision's names where torchvision has the layer, so its checkpoints fit the backbone unchanged.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import densenet121

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import Pooling

SQUEEZE_REDUCTION = 16  # r of eq. 3
TRANSITION_CHANNELS = {"transition1": 128, "transition2": 256, "transition3": 512}  # output channels


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that is computed from the means of all channels (eqs. 1-3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // SQUEEZE_REDUCTION, bias=False)
        self.excite = nn.Linear(channels // SQUEEZE_REDUCTION, channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        means = features.mean((2, 3))
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(means))))
        return features * gates[:, :, None, None]


class MultiMapTransfer(nn.Module):
    """A 1x1 convolution to M maps per finding, which are averaged to one class map per finding (sec. 3.3)."""

    def __init__(self, channels: int, findings: int, maps_per_finding: int) -> None:
        super().__init__()
        self.findings, self.maps_per_finding = findings, maps_per_finding
        self.conv = nn.Conv2d(channels, findings * maps_per_finding, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """[N, channels, H, W] to class maps [N, findings, H, W]. The M maps of a finding are adjacent channels."""
        maps: Tensor = self.conv(features)
        return maps.reshape(-1, self.findings, self.maps_per_finding, *maps.shape[2:]).mean(2)


class MaxMinPool(nn.Module):
    """Mean of the k_max largest activations plus alpha times the mean of the k_min smallest (eq. 4)."""

    def __init__(self, k_max: int, k_min: int, alpha: float) -> None:
        super().__init__()
        self.k_max, self.k_min, self.alpha = k_max, k_min, alpha

    def forward(self, maps: Tensor) -> Tensor:
        """Class maps [N, C, H, W] to scores [N, C]. Raises UsageError if k_max or k_min exceeds H * W."""
        cells = maps.flatten(2)
        if max(self.k_max, self.k_min) > cells.shape[2]:
            raise UsageError(f"k_max and k_min must be at most {cells.shape[2]}, the number of cells in a class map")
        scores = cells.topk(self.k_max, 2).values.mean(2)
        if self.alpha:
            scores = scores + self.alpha * cells.topk(self.k_min, 2, largest=False).values.mean(2)
        return scores


class PooledMapsNetwork(CropNetwork):
    """A backbone with the paper's head: a multi-map transfer layer, and max-min pooling of its class maps (sec. 3.3).

    features: the backbone, with torchvision's or timm's names. channels: of its activations.
    """

    def __init__(
        self, features: nn.Module, channels: int, maps_per_finding: int, pooling: Pooling, findings: int = len(FINDINGS)
    ) -> None:
        super().__init__()
        self.features, self.pooling = features, pooling
        self.transfer = MultiMapTransfer(channels, findings, maps_per_finding)
        self.pool = MaxMinPool(*pooling)

    def activations(self, crops: Tensor) -> Tensor:
        """Crops [N, channels, H, W] to what the transfer layer takes, [N, any, h, w]."""
        activations: Tensor = self.features(crops)
        return activations

    def class_maps(self, crops: Tensor) -> Tensor:
        maps: Tensor = self.transfer(self.activations(crops))
        return maps

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.class_maps(crops)
        return self.pool(maps), maps


class Network(PooledMapsNetwork):
    """Crops [N, channels, H, W], normalised, to scores (logits) [N, K], pooled from class maps [N, K, H/32, W/32]."""

    def __init__(self, settings: ModelSettings, findings: int = len(FINDINGS)) -> None:
        backbone = densenet121(weights=None)
        features = backbone.features
        if settings.channels != 3:
            features.conv0 = nn.Conv2d(settings.channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        if settings.squeeze_excitation:
            for name, channels in TRANSITION_CHANNELS.items():
                setattr(features, name, _with_gate(getattr(features, name), channels))
        super().__init__(
            features, backbone.classifier.in_features, settings.maps_per_finding, settings.pooling, findings
        )
        self.settings = settings

    def activations(self, crops: Tensor) -> Tensor:
        return torch.relu(self.features(crops))


def _with_gate(transition: nn.Sequential, channels: int) -> nn.Sequential:
    """Insert the gate between a transition's convolution and its average pooling (sec. 3.2)."""
    norm, relu, conv, pool = transition
    return nn.Sequential(OrderedDict(norm=norm, relu=relu, conv=conv, se=SqueezeExcitation(channels), pool=pool))
