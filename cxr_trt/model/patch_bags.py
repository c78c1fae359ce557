"""Li et al. 2018: an X-ray is a bag of patches, and has a finding if one of its patches has it.

A reconstruction: the paper itself was not at hand, see `cxr_trt.systems.li2018`.
"""

import torch
from torch import Tensor, nn

from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork

BLOCKS, WIDTHS, EXPANSION = (3, 4, 6, 3), (64, 128, 256, 512), 4  # of a ResNet-50
HEAD_CHANNELS = 512
SQUEEZE = 0.02  # the paper squeezes probabilities of patches into [0.98, 1], so that long products do not vanish
SERIES_TERMS = 5  # of the logarithm; what is left out is below 0.02 ** 6
SMALLEST_BAG = 1e-30  # so that the logarithm of a bag whose patches all underflow stays finite


class PatchBags(nn.Module):
    """The probability that not all patches of a bag are negative, as a logit.

    p = 1 - prod(1 - u) with u = 0.02 * sigmoid(z) for the patches' logits z. In float32 the product would round away
    what is small, so a = -log(1 - p) is summed as the series of -log(1 - u), and p / (1 - p) = exp(a) - 1 is taken from
    tanh(a / 2). The logit is what a loss needs: its softplus is -log(1 - p) = a.
    """

    stays_float32 = True

    def forward(self, logits: Tensor) -> Tensor:
        """[N, K, P, P] to [N, K]."""
        with torch.autocast(logits.device.type, enabled=False):
            u = SQUEEZE * torch.sigmoid(logits.float())
            series = torch.zeros_like(u)
            for power in range(SERIES_TERMS, 0, -1):
                series = u * (1 / power + series)
            half = torch.tanh(series.sum((2, 3)) / 2).clamp(min=SMALLEST_BAG)
            return torch.log(2 * half / (1 - half))


class PatchGrid(nn.Module):
    """Brings features to a grid of patches: by maximum pooling if they have more cells, bilinearly if fewer."""

    stays_float32 = True

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, h, w] to [N, C, P, P]."""
        for axis in (2, 3):
            if features.shape[axis] > self.patches:
                features = _pooled(features, axis, self.patches)
        height, width = features.shape[2:]
        if height < self.patches:
            features = _refining(height, self.patches).to(features) @ features
        if width < self.patches:
            features = features @ _refining(width, self.patches).to(features).T
        return features


def _pooled(features: Tensor, axis: int, count: int) -> Tensor:
    """The largest of each of `count` windows along an axis, which begin and end as torch's adaptive pooling does."""
    cells = features.shape[axis]
    bounds = [(i * cells // count, -((i + 1) * cells // -count)) for i in range(count)]
    return torch.cat(
        [features.narrow(axis, start, end - start).amax(axis, keepdim=True) for start, end in bounds], axis
    )


def _refining(cells: int, count: int) -> Tensor:
    """A matrix [count, cells] that interpolates linearly between the middles of cells, and is flat beyond them."""
    source = ((torch.arange(count) + 0.5) * cells / count - 0.5).clamp(0, cells - 1)
    return (1 - (source[:, None] - torch.arange(cells)).abs()).relu()


class PreActivationBlock(nn.Module):
    """A bottleneck with norm and ReLU before each convolution (He et al. 2016, "Identity Mappings", fig. 4 e)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = EXPANSION * width
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, width, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, after, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 or before != after else None

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        y = self.conv2(torch.relu(self.norm2(self.conv1(active))))
        y = self.conv3(torch.relu(self.norm3(y)))
        added: Tensor = y + (x if self.shortcut is None else self.shortcut(active))
        return added


def pre_activation_resnet50() -> nn.Sequential:
    """[N, 3, H, W] to [N, 2048, H / 32, W / 32]."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for stage, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
        for block in range(blocks):
            layers.append(PreActivationBlock(before, width, 2 if stage and not block else 1))
            before = EXPANSION * width
    return nn.Sequential(*layers, nn.BatchNorm2d(before), nn.ReLU())


class PatchBagNetwork(CropNetwork):
    """Crops [N, 3, H, W] to logits of the bags [N, 14], and to logits of the patches [N, 14, P, P]."""

    backbones = ()  # torchvision has no ResNet of this kind

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.features, self.grid = pre_activation_resnet50(), PatchGrid(patches)
        self.head = nn.Sequential(
            nn.Conv2d(EXPANSION * WIDTHS[-1], HEAD_CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(HEAD_CHANNELS),
            nn.ReLU(),
        )
        self.prediction, self.bags = nn.Conv2d(HEAD_CHANNELS, len(FINDINGS), 1), PatchBags()

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.prediction(self.head(self.grid(self.features(crops))))
        return self.bags(patches), patches
