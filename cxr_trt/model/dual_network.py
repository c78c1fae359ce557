"""DualNet (Rubin et al. 2018): a backbone for each of two X-rays of a study, and one linear layer on both.

A reconstruction: the paper itself was not at hand, see `cxr_trt.systems.rubin2018`.
"""

import torch
from torch import Tensor, nn

from cxr_trt.findings import FINDINGS
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.global_pooling import AveragePool


class DualNetwork(CropNetwork):
    """Pairs [N, 3, 2 * S, S], the frontal X-ray above the lateral one, to logits of the 14 findings [N, 14].

    frontal, lateral: to activations [N, channels, h, w] before their last ReLU; of one architecture, with weights of
        their own.
    """

    backbones = ("frontal.", "lateral.")

    def __init__(self, frontal: nn.Module, lateral: nn.Module, channels: int) -> None:
        super().__init__()
        self.frontal, self.lateral, self.pool = frontal, lateral, AveragePool()
        self.prediction = nn.Linear(2 * channels, len(FINDINGS))

    def outputs_and_maps(self, crops: Tensor) -> tuple[Tensor, None]:
        frontal, lateral = crops.chunk(2, 2)
        activations = torch.relu(self.frontal(frontal)), torch.relu(self.lateral(lateral))
        return self.prediction(torch.cat([self.pool(own) for own in activations], 1)), None
