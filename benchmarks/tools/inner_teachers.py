"""Distillation from the inside of other networks: class maps and features instead of probabilities.

A. Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550. Here all networks have features of the
same shape, so no layer is needed between them.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cxr_trt.model.edge import EdgeNetwork
from train.batches import Batch
from train.loop import Trainer
from train.losses import ClassWeights, cross_entropy
from train.objective import Objective


class TaughtInside(Objective):
    """The objective of a training, and what networks of the same kind say inside about the same crops."""

    def __init__(self, trainer: Trainer, teachers: Sequence[EdgeNetwork]) -> None:
        super().__init__(
            trainer.recipe, trainer.network, trainer.head, trainer.images.labels[trainer.train], trainer.group
        )
        self.teachers = [teacher.to(self.device).eval() for teacher in teachers]

    def losses(self, batch: Batch, weights: ClassWeights | None) -> tuple[Tensor, Tensor]:
        """See `Objective.losses`; the distance to the teachers is added to the second one."""
        pixels, network = self._normalised(batch.crops), cast(EdgeNetwork, self.network)
        features = network.activations(pixels)
        maps = network.transfer(features)
        loss = cross_entropy(network.pool(maps), batch.labels.to(self.device), weights)
        with torch.no_grad():
            taught = [teacher.features(pixels) for teacher in self.teachers]
            taught_maps = torch.stack([own.transfer(each) for own, each in zip(self.teachers, taught, strict=True)])
        further = inner_distance(features, torch.stack(taught).mean(0), maps, taught_maps.mean(0))
        if self.head is not None:
            further = further + self.recipe.auxiliary * self.head.loss(features, batch.traits.to(self.device))
        return loss, further


def inner_distance(features: Tensor, taught_features: Tensor, maps: Tensor, taught_maps: Tensor) -> Tensor:
    """The mean absolute difference of maps [N, 14, h, w], plus 1, less the mean cosine of features [N, C, h, w]."""
    alike = cosine_similarity(features, taught_features, dim=1).mean()
    return nn.functional.l1_loss(maps, taught_maps) + 1 - alike
