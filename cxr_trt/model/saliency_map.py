"""Yao et al. 2018: maps of probabilities from several resolutions, pooled by log-sum-exp with a bounded, learned r.

A reconstruction: the paper itself was not at hand, see `cxr_trt.systems.yao2018`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork

CHANNELS = (14, 28, 56, 112)  # at 1/8, 1/16, 1/32 and 1/64 of the crop's sides: k, 2k, 4k and 8k
STRIDE = 64  # pixels of a crop per cell of the coarsest features
DENSE_LAYERS = 4
SMALLEST = 1e-6  # distance of a probability from 0 and 1


class LowerBoundedLse(nn.Module):
    """LSE-LBA: p = log(mean(exp(r S))) / r over the cells' probabilities S, with r = r0 + exp(beta), beta learned.

    p is a probability, and is returned as a logit. For r0 = 0 and beta to minus infinity it is the mean; as r grows it
    approaches the maximum. One saturated cell of 4,096 gives 0.016, 0.25 and 0.72 at r = 6, 11 and 30, so r bounds how
    high a small finding can score. There is one beta per finding.
    """

    stays_float32 = True

    def __init__(self, lower_bound: float, findings: int = len(FINDINGS)) -> None:
        super().__init__()
        if not lower_bound >= 0:
            raise UsageError(f"the lower bound of r is {lower_bound}; it must be 0 or more")
        self.lower_bound = lower_bound
        self.beta = nn.Parameter(torch.zeros(findings))

    def forward(self, logits: Tensor) -> Tensor:
        """Logits of the cells [N, K, h, w] to logits [N, K]."""
        with torch.autocast(logits.device.type, enabled=False):
            cells = torch.sigmoid(logits.float()).flatten(2)
            r = (self.lower_bound + self.beta.float().exp())[:, None]
            highest = cells.amax(2, keepdim=True).detach()  # any constant gives the same gradient
            pooled = highest + (r * (cells - highest)).exp().mean(2, keepdim=True).log() / r
            p = pooled.squeeze(2).clamp(SMALLEST, 1 - SMALLEST)
            return p.log() - (1 - p).log()


class _Dense(nn.Module):
    """A dense block that keeps the resolution, and a 1x1 convolution to `after` channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        growth = CHANNELS[0]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(before + i * growth),
                nn.ReLU(),
                nn.Conv2d(before + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(DENSE_LAYERS)
        )
        joined = before + DENSE_LAYERS * growth
        self.last = nn.Sequential(nn.BatchNorm2d(joined), nn.ReLU(), nn.Conv2d(joined, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        joined: Tensor = self.last(x)
        return joined


class _Halving(nn.Module):
    """A residual block with stride 2: two 3x3 convolutions, and beside them an average of 2x2 and a 1x1 convolution.

    Not a 1x1 convolution with stride 2: with 14 channels, its gradient ends PyTorch 2.14 with SIGSEGV on CPUs.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(after), nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        halved: Tensor = self.shortcut(x) + y
        return halved


class SaliencyMapNetwork(CropNetwork):
    """Crops [N, 3, H, W] to logits [N, 14], and to logits of the cells [N, 14, H / 8, W / 8].

    Raises:
        UsageError: H or W is not a multiple of 64.
    """

    backbones = ()

    def __init__(self, lower_bound: float) -> None:
        super().__init__()
        first = CHANNELS[0]
        self.stem = nn.Sequential(nn.Conv2d(3, first, 7, 2, 3, bias=False), _Halving(first, first))
        before = (first, *CHANNELS)
        self.down = nn.ModuleList(
            nn.Sequential(_Halving(a, b), _Dense(b, b)) for a, b in zip(before, CHANNELS, strict=False)
        )
        self.up = nn.ModuleList(_Dense(a + b, b) for a, b in zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True))
        self.norm = nn.BatchNorm2d(first)
        self.prediction, self.pool = nn.Conv2d(first, len(FINDINGS), 1), LowerBoundedLse(lower_bound)

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        if crops.shape[2] % STRIDE or crops.shape[3] % STRIDE:
            raise UsageError(f"crops of this network have sides that are multiples of {STRIDE} pixels")
        x, levels = self.stem(crops), []
        for block in self.down:
            x = block(x)
            levels.append(x)
        for block, level in zip(self.up, levels[-2::-1], strict=True):
            x = block(torch.cat([interpolate(x, scale_factor=2.0, mode="nearest"), level], 1))
        maps = self.prediction(torch.relu(self.norm(x)))
        return self.pool(maps), maps
