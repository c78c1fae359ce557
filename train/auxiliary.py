"""Auxiliary targets: view position, sex and age, learned beside the findings if there are few images.

They say much about anatomy and projection, and almost every image has them. The head is dropped after training.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from train.data import TRAITS


class AuxiliaryHead(nn.Module):
    """A linear layer on the spatial means of the backbone's features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, len(TRAITS))

    def loss(self, features: Tensor, traits: Tensor) -> Tensor:
        """The mean over the known traits of cross-entropy (view, sex) and squared error (age).

        Args:
            features: [B, channels, h, w].
            traits: [B, 3], NaN where unknown.
        """
        found = self.linear(features.float().mean((2, 3)))
        known = ~traits.isnan()
        target = torch.where(known, traits, 0.0)
        entropy = binary_cross_entropy_with_logits(found[:, :2], target[:, :2], reduction="none")
        error = mse_loss(found[:, 2:], target[:, 2:], reduction="none")
        return (torch.cat([entropy, error], 1) * known).sum() / known.sum().clamp(min=1)
