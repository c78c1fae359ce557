"""Losses of logits [B, C] with labels [B, C] of 0, 1, or NaN where nothing is known."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

Loss = Literal["bce", "w-cel", "w-cel-finding"]


class ClassWeights(NamedTuple):
    """What the terms of ones and of zeros are multiplied by."""

    ones: Tensor
    zeros: Tensor


def class_weights(ones: Tensor, entries: Tensor) -> ClassWeights:
    """The weights of W-CEL (Wang et al. 2017, eq. 1): (P + N) / P and (P + N) / N.

    In "w-cel", P and N are counted over all known labels of a batch; in "w-cel-finding", per finding over all training
    images. Without ones, or without zeros, no term has their weight, and it is given as if there were one.

    Args:
        ones: P.
        entries: P + N, of the same shape.
    """
    return ClassWeights(entries / ones.clamp(min=1), entries / (entries - ones).clamp(min=1))


def cross_entropy(scores: Tensor, labels: Tensor, weights: ClassWeights | None) -> Tensor:
    """The mean of the binary cross-entropies of known labels; with weights, W-CEL.

    W-CEL is a sum in the paper. Interpretation: it is divided by the number of known labels, so that a rate suits every
    batch size.
    """
    known = ~labels.isnan()
    losses = binary_cross_entropy_with_logits(scores, torch.where(known, labels, 0.0), reduction="none")
    if weights is not None:
        losses = losses * torch.where(labels > 0, weights.ones, weights.zeros).to(losses)
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)
