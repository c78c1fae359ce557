"""Losses of logits [B, C] with labels [B, C] of 0, 1, or NaN where nothing is known."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cxr_trt.model.patch_bags import SQUEEZE

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


def box_cross_entropy(scores: Tensor, patches: Tensor, labels: Tensor, inside: Tensor, weight: float) -> Tensor:
    """The loss of Li et al. 2018: of a finding with a box, that just the patches which it touches have it.

    The probability of a box is the product of p_j of the patches inside and of 1 - p_j of those outside, all squeezed
    into [0.98, 1]. Its negative logarithm, times the weight, takes the place of the bag's cross-entropy.

    Args:
        scores: logits of the bags [B, K].
        patches: logits of the patches [B, K, P, P].
        labels: [B, K], 0, 1, or NaN where nothing is known.
        inside: bool [B, K, P, P], the patches that a finding's boxes touch; none where there is no box.
        weight: lambda of the paper.
    """
    boxed, known = inside.any(3).any(2), ~labels.isnan()
    bags = binary_cross_entropy_with_logits(scores, torch.where(known, labels, 0.0), reduction="none")
    other = torch.sigmoid(torch.where(inside, -patches, patches))  # of what a patch is not
    boxes = -torch.log1p(-SQUEEZE * other).sum((2, 3))
    losses = torch.where(boxed, weight * boxes, torch.where(known, bags, 0.0))
    return losses.sum() / (known | boxed).sum().clamp(min=1)
