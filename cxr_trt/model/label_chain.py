"""Yao et al. 2017: a DenseNet, and an LSTM that reads it and decides one finding after the other.

Equations are those of arXiv 1710.10501 v2. What they leave open is in `cxr_trt.systems.yao2017`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cxr_trt.errors import UsageError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork

Marginals = Literal["exact", "greedy"]
BLOCKS, LAYERS, BOTTLENECK = 4, 3, 4  # dense blocks, layers in each, and 4 K channels between a layer's convolutions
STRIDE = 32  # pixels of a crop per cell of the last features
CELLS = 4  # per side, to which features are averaged before they become a vector
STATE = 100  # of the LSTM
SMALLEST = 1e-7  # distance of a probability from 0 and 1


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 to 4 K channels, norm, ReLU, 3x3 to K channels, which are joined to what came in."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        middle = BOTTLENECK * growth
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, middle, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(middle), nn.Conv2d(middle, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


def encoder(growth: int) -> nn.Sequential:
    """Grey crops [N, 1, H, W] to vectors [N, 64 K] (table 1). Raises UsageError unless H and W are multiples of 128."""
    layers: list[nn.Module] = [nn.Conv2d(1, growth, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    for block in range(BLOCKS):
        layers += [DenseLayer((1 + i) * growth, growth) for i in range(LAYERS)]
        channels = (1 + LAYERS) * growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if block < BLOCKS - 1:
            layers += [nn.Conv2d(channels, growth, 1, bias=False), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, _Cells(), nn.Flatten())


class _Cells(nn.Module):
    """Averages to CELLS x CELLS, in windows of equal size."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % CELLS or width % CELLS:
            raise UsageError(f"crops of this network have sides that are multiples of {STRIDE * CELLS} pixels")
        return nn.functional.avg_pool2d(x, (height // CELLS, width // CELLS))


class LabelDecoder(nn.Module):
    """Decides the findings one after the other, each with the label before it in view (eqs. 5 to 12).

    marginals: what scores are. "exact" is the probability of a finding over all sequences of labels, of which 2^t lead
        to step t; "greedy" follows the one sequence that a threshold of 0.5 gives, as the paper does.
    """

    stays_float32 = True

    def __init__(self, inputs: int, steps: int, marginals: Marginals, state: int = STATE) -> None:
        super().__init__()
        self.steps, self.marginals = steps, marginals
        self.hidden, self.cell = (
            nn.Sequential(nn.Linear(inputs, state), nn.Tanh(), nn.Linear(state, state)) for _ in range(2)
        )
        self.input = nn.Linear(inputs, 4 * state)  # W and b of the gates
        self.recurrent = nn.Linear(state, 4 * state, bias=False)  # U
        self.label = nn.Parameter(torch.randn(4 * state) / state**0.5)  # V
        self.prediction = nn.Linear(state, 1)  # q and b_l

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [N, D] to logits [N, steps], in the order of the steps."""
        with torch.autocast(x.device.type, enabled=False):
            p = self._exact(x.float()) if self.marginals == "exact" else self._greedy(x.float())
            p = p.clamp(SMALLEST, 1 - SMALLEST)
            return p.log() - (1 - p).log()

    def logits_given(self, x: Tensor, labels: Tensor) -> Tensor:
        """Logits [N, steps] of each step where the labels [N, steps] of the steps before are known, as in training."""
        with torch.autocast(x.device.type, enabled=False):
            gates, h, c = self._start(x.float())
            logits = []
            for t in range(self.steps):
                h, c = self._step(gates, h, c, labels[:, t - 1 : t].float() if t else None)
                logits.append(self.prediction(h))
            return torch.cat(logits, 1)

    def _start(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.input(x), self.hidden(x), self.cell(x)

    def _step(self, gates: Tensor, h: Tensor, c: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Eqs. 6 to 11; no label is a label of 0."""
        gates = gates + self.recurrent(h)
        if label is not None:
            gates = gates + label * self.label
        i, o, f, g = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def _greedy(self, x: Tensor) -> Tensor:
        gates, h, c = self._start(x)
        found: list[Tensor] = []
        for _ in range(self.steps):
            h, c = self._step(gates, h, c, (found[-1] > 0.5).float() if found else None)
            found.append(torch.sigmoid(self.prediction(h)))
        return torch.cat(found, 1)

    def _exact(self, x: Tensor) -> Tensor:
        """Every sequence of labels at once: states [N, 2^t, state] with their probabilities [N, 2^t, 1]."""
        gates, h, c = (value[:, None] for value in self._start(x))
        weights = torch.ones_like(h[:, :, :1])
        found = []
        label: Tensor | None = None
        for _ in range(self.steps):
            h, c = self._step(gates, h, c, label)
            on = weights * torch.sigmoid(self.prediction(h))
            off = weights - on
            found.append(on.sum(1))
            label = torch.cat([torch.zeros_like(off), torch.ones_like(on)], 1)
            weights, h, c = torch.cat([off, on], 1), torch.cat([h, h], 1), torch.cat([c, c], 1)
        return torch.cat(found, 1)


class IndependentLabels(CropNetwork):
    """Model a: a linear layer gives all findings. Grey crops [N, 1, H, W] to logits [N, 14], without maps."""

    backbones = ()

    def __init__(self, growth: int) -> None:
        super().__init__()
        self.features = encoder(growth)
        self.prediction = nn.Linear((1 + LAYERS) * growth * CELLS**2, len(FINDINGS))

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, None]:
        return self.prediction(self.features(crops)), None


class LabelChain(CropNetwork):
    """Models b: an LSTM decides the findings in an order. Grey crops [N, 1, H, W] to logits [N, 14], without maps.

    order: the findings as the decoder decides them.
    """

    backbones = ()
    decided: Tensor
    step_of: Tensor

    def __init__(self, growth: int, order: Sequence[str], marginals: Marginals) -> None:
        super().__init__()
        self.features = encoder(growth)
        self.decoder = LabelDecoder((1 + LAYERS) * growth * CELLS**2, len(order), marginals)
        decided = [FINDINGS.index(finding) for finding in order]
        self.register_buffer("decided", torch.tensor(decided), persistent=False)  # by step, the finding
        self.register_buffer("step_of", torch.tensor(decided).argsort(), persistent=False)  # by finding, the step

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, None]:
        return self.decoder(self.features(crops)).index_select(1, self.step_of), None

    def training_outputs(self, crops: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.decoder.logits_given(self.features(crops), labels[:, self.decided].nan_to_num())
        return logits.index_select(1, self.step_of), labels
