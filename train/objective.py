"""What a batch costs: the forward pass, in mixed precision where that is faster, and the loss that a recipe names."""

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_trt.evaluate.auc import evaluate
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.systems import find_system
from cxr_trt.views import NETWORK_STRIDE
from train.auxiliary import AuxiliaryHead
from train.batches import Batch, LabelledImages
from train.data import UNKNOWN
from train.group import Group
from train.inner_teacher import InnerTeachers, feature_distance, map_distance
from train.losses import ClassWeights, box_cross_entropy, class_weights, cross_entropy
from train.recipe import Recipe


class Objective:
    """The losses of a recipe, for a network and its auxiliary head on the device of a group.

    labels: uint8 [N, 14] of the training images, for weights that are counted over all of them.
    inner_teachers: for a recipe that learns their class maps or features.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: CropNetwork,
        head: AuxiliaryHead | None,
        labels: npt.NDArray[np.uint8],
        group: Group,
        inner_teachers: InnerTeachers | None = None,
    ) -> None:
        self.recipe, self.network, self.head, self.group, self.device = recipe, network, head, group, group.device
        self.inner_teachers = inner_teachers and inner_teachers.to(self.device)
        cuda = self.device.type == "cuda"
        self.mixed = cuda or recipe.bfloat16
        self.precision = torch.float16 if cuda and not torch.cuda.is_bf16_supported() else torch.bfloat16
        system = find_system(recipe.setting)
        self.mean, self.std = (torch.tensor(v, device=self.device)[:, None, None] for v in (system.mean, system.std))
        counts = (labels == 1).sum(0), (labels != UNKNOWN).sum(0)
        self.finding_weights = class_weights(*(torch.tensor(count, device=self.device).double() for count in counts))

    def losses(self, batch: Batch, weights: ClassWeights | None) -> tuple[Tensor, Tensor]:
        """The loss of a batch; and those of auxiliary targets, equivariance and teachers times their weights, or 0."""
        nothing = torch.zeros((), device=self.device)
        if batch.inside is not None:
            return self._box_loss(batch, batch.inside), nothing
        if self.head is None and not self.recipe.equivariance and self.inner_teachers is None:
            pixels, labels = self._normalised(batch.crops), batch.labels.to(self.device)
            with self._autocast():
                scores, labels = self.network.training_outputs(pixels, labels)
            return cross_entropy(scores.float(), labels, weights), nothing
        pixels, network = self._normalised(batch.crops), cast(PooledMapsNetwork, self.network)
        with self._autocast():
            features = network.activations(pixels)
            maps = network.transfer(features)
            scores = network.pool(maps)
        loss, further = cross_entropy(scores.float(), batch.labels.to(self.device), weights), nothing
        if self.head is not None:
            further = further + self.recipe.auxiliary * self.head.loss(features, batch.traits.to(self.device))
        if self.recipe.equivariance:
            with self._autocast():
                further = further + self.recipe.equivariance * equivariance_loss(network, pixels, maps)
        if self.inner_teachers is not None:
            with self._autocast():
                taught_features, taught_maps = self.inner_teachers(batch.crops.to(self.device))
            if self.recipe.map_teacher:
                further = further + self.recipe.map_teacher * map_distance(maps, taught_maps)
            if self.recipe.feature_teacher:
                further = further + self.recipe.feature_teacher * feature_distance(features, taught_features)
        return loss, further

    def scores(self, network: CropNetwork, crops: Tensor) -> Tensor:
        """From uint8 crops [B, H, W] to float32 logits [B, 14] of a network, which can be an average of the own one."""
        pixels = self._normalised(crops)
        with self._autocast():
            scores: Tensor = network(pixels)
        return scores.float()

    @torch.no_grad()
    def validate(
        self, network: CropNetwork, images: LabelledImages, rows: npt.NDArray[np.int64]
    ) -> tuple[float, float | None]:
        """Loss and mean AUC of a network for the centre crops of images; the mean is over findings with both classes.

        The mean AUC is None if there is no such finding, or the loss is not finite.
        """
        total, scores, labels = 0.0, [], []
        weights = self.class_weights(images.targets[rows], shared=False)
        for batch in images.validation(rows, self.recipe.batch // self.recipe.accumulate):
            part = self.scores(network, batch.crops)
            total += float(cross_entropy(part, batch.labels.to(self.device), weights)) * len(part)
            scores.append(part.cpu().numpy())
            labels.append(batch.labels.numpy())
        if not np.isfinite(total):
            return total, None
        return total / len(rows), _mean_auc(np.concatenate(scores), np.concatenate(labels))

    def class_weights(self, labels: Tensor, *, shared: bool = True) -> ClassWeights | None:
        """The weights for these labels [B, 14], together with those of the other processes if the batch is shared."""
        if self.recipe.loss == "bce":
            return None
        if self.recipe.loss == "w-cel-finding":
            return self.finding_weights
        counts = torch.stack([labels.nansum(dtype=torch.float64), (~labels.isnan()).sum()]).to(self.device)
        return class_weights(*(self.group.sum(counts) if shared else counts))

    def _box_loss(self, batch: Batch, inside: Tensor) -> Tensor:
        """The loss of a batch with boxes (Li et al. 2018)."""
        with self._autocast():
            scores, patches = self.network.outputs_and_maps(self._normalised(batch.crops))
        assert patches is not None  # noqa: S101 - for the type checker
        labels, inside = batch.labels.to(self.device), inside.to(self.device)
        return box_cross_entropy(scores.float(), patches.float(), labels, inside, self.recipe.box_weight)

    def _normalised(self, crops: Tensor) -> Tensor:
        pixels = crops.to(self.device, non_blocking=True)[:, None].float() / 255
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.mixed)


def equivariance_loss(network: PooledMapsNetwork, pixels: Tensor, maps: Tensor) -> Tensor:
    """How much class maps change where a crop is cut: the mean absolute difference of a cell.

    Half of the crops are shown again without a strip at their top and left, the others without one at their bottom and
    right, and their maps compared where both have cells. What a map owes to the edge of a crop does not shift with it.
    This is the equivariant regularisation of Wang et al. 2020 (CVPR, "Self-supervised Equivariant Attention Mechanism
    for Weakly Supervised Semantic Segmentation", sec. 3.2), with a shift in place of their scaling.

    Args:
        network: gives the maps.
        pixels: crops [N, channels, H, W], normalised.
        maps: what the network gives for them, [N, K, h, w].
    """
    strip, half = NETWORK_STRIDE, len(pixels) // 2
    cells = strip * maps.shape[-1] // pixels.shape[-1]
    shown = torch.cat([pixels[:half, :, strip:, strip:], pixels[half:, :, :-strip, :-strip]])
    expected = torch.cat([maps[:half, :, cells:, cells:], maps[half:, :, :-cells, :-cells]])
    return (network.class_maps(shown) - expected).abs().mean()


def _mean_auc(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]) -> float | None:
    """The mean over the findings that have both classes among their known labels."""
    areas = [
        evaluate(["finding"], column[known, None], truth[known, None], np.arange(known.sum()), resamples=0).mean_auc
        for column, truth in zip(scores.T, labels.T, strict=True)
        if (known := ~np.isnan(truth)).any()
    ]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None
