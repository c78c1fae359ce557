"""The training loop (paper, sec. 4.2): by default Adam on the mean of 14 binary cross-entropies, slower on a plateau.

A recipe can choose others, and add what helps if there are few images (`train.recipe.Recipe`).

A run that was killed at any step continues from its last state as if nothing had happened: with the same bits on a CPU
with the same number of threads, and up to the order of sums on a GPU. The state holds the weights, the optimizer, the
rate and the position in the epoch. The order of images and their crops follow from seed, epoch and step.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxr_trt.errors import UsageError
from cxr_trt.evaluate.auc import evaluate
from cxr_trt.model.checkpoint import save_checkpoint
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.outputs import replacing
from cxr_trt.systems import find_system
from cxr_trt.views import NETWORK_STRIDE
from train.augment import Augmentation
from train.auxiliary import AuxiliaryHead
from train.batches import Batch, LabelledImages, known_labels
from train.boxes import grid_bytes
from train.data import UNKNOWN
from train.group import Group
from train.log import Log
from train.losses import ClassWeights, box_cross_entropy, class_weights, cross_entropy
from train.optimizer import frozen_modules, make_optimizer, make_scheduler, parameter_groups
from train.recipe import Recipe
from train.state import load_state, save_state

STATE_FILE = "state.pt"
COUNTERS = ("epoch", "step", "best", "worse", "seconds")  # of the Trainer
STATEFUL_PARTS = ("network", "averaged", "head", "optimizer", "scheduler", "scaler")  # of the Trainer


class Trainer:
    """Trains a network and writes into the folder `out`.

    `state.pt` is the state to continue from. `best.safetensors` and `last.safetensors` are the weights with the least
    validation loss, or the highest AUC, and those of the last epoch; their headers have epoch, validation loss and AUC,
    recipe and split.

    `train` and `val` are rows of `images`; `split_hash` is that of the data set.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: CropNetwork,
        images: LabelledImages,
        train: npt.NDArray[np.int64],
        val: npt.NDArray[np.int64],
        split_hash: str,
        out: Path,
        group: Group,
    ) -> None:
        if len(train) < recipe.batch or not len(val):
            raise UsageError(
                f"{len(train)} training and {len(val)} validation images, but at least {recipe.batch} and 1 are needed"
            )
        if recipe.batch % (recipe.accumulate * group.size):
            raise UsageError(
                f"batch {recipe.batch} cannot be divided into {recipe.accumulate} x {group.size} equal parts"
            )
        self.recipe, self.images, self.train, self.val = recipe, images, train, val
        self.out, self.group, self.device = out, group, group.device
        if recipe.select == "auc" and not (_has(images.labels[val], 0) & _has(images.labels[val], 1)).any():
            raise UsageError("the validation images have no finding with both classes, so there is no AUC to select by")
        device = group.device
        known = b"".join((images.labels.tobytes(), images.traits.tobytes(), *grid_bytes(images.grids)))
        labels = hashlib.sha256(known).hexdigest()
        self.identity = {"recipe": json.dumps(dataclasses.asdict(recipe)), "split": split_hash, "labels": labels}
        network.part = recipe.part
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = network.requires_grad_(False).get_submodule(recipe.part).requires_grad_()
        self.frozen = frozen_modules(network, recipe.frozen)
        self.head = AuxiliaryHead(self._pooled.transfer.conv.in_channels).to(device) if recipe.auxiliary else None
        self.augmentation = Augmentation(
            recipe.scale, recipe.rotation, recipe.contrast, recipe.translation, recipe.min_area
        )
        if recipe.prior_bias and not (out / STATE_FILE).exists():
            set_prior_bias(self._pooled, images.labels[train])
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]  # with 0 a copy
        self.averaged = AveragedModel(network, device, multi_avg_fn=average, use_buffers=True)
        groups = parameter_groups(recipe, network, self.head)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = make_optimizer(recipe, groups)
        self.scheduler = make_scheduler(recipe, self.optimizer, self.steps)
        cuda = device.type == "cuda"
        self.mixed = cuda or recipe.bfloat16
        self.precision = torch.float16 if cuda and not torch.cuda.is_bf16_supported() else torch.bfloat16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        system = find_system(recipe.setting)
        self.mean, self.std = (torch.tensor(v, device=device)[:, None, None] for v in (system.mean, system.std))
        known = images.labels[train] != UNKNOWN
        ones, entries = (images.labels[train] == 1).sum(0), known.sum(0)
        self.finding_weights = class_weights(
            *(torch.tensor(count, device=device).double() for count in (ones, entries))
        )
        self.epoch = self.step = 0  # the next ones
        self.seconds = 0.0  # of training that is in the weights
        self._saved = time.monotonic()
        self.best = math.inf  # the least validation loss, or the negative of the highest AUC
        self.worse = 0  # epochs since then
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)  # over the steps of this epoch
        if (out / STATE_FILE).exists():
            self._restore(load_state(out / STATE_FILE, self.identity))

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return len(self.train) // self.recipe.batch

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            UsageError: the loss is no longer finite, or the disk is full.
        """
        done, total = self.epoch * self.steps + self.step, self.recipe.epochs * self.steps
        log = Log(self.out / "curves", done, total, silent=not self.group.first)
        if self.epoch or self.step:
            log.line(f"continuing at epoch {self.epoch + 1}, step {self.step + 1}")
        try:
            while self.epoch < self.recipe.epochs and not self._is_stopped:
                self._train_epoch(log)
                self._end_epoch(log)
            if self._is_stopped:
                log.line(f"stopped after {self.worse} epochs without better weights")
        finally:
            log.close()

    @property
    def _is_stopped(self) -> bool:
        return 0 < self.recipe.stop_after <= self.worse

    def _train_epoch(self, log: Log) -> None:
        self.network.eval()  # parts that are not trained keep their batch statistics
        self.trained.train()
        for module in self.frozen:
            module.eval()
        recipe = self.recipe
        if recipe.anneal:
            self._anneal()
        batches = self.images.training(
            self.train,
            recipe.batch,
            augmentation=self.augmentation,
            seed=recipe.seed,
            epoch=self.epoch,
            start=self.step,
            part=(self.group.rank, self.group.size),
            spread=recipe.crop_spread,
        )
        for batch in batches:
            self.loss_sum += self.update(batch)
            self.step += 1
            if log.due():
                loss, done = float(self.loss_sum) / self.step, self.epoch * self.steps + self.step
                log.progress(done, f"epoch {self.epoch + 1}, step {self.step} of {self.steps}: loss {loss:.4f} so far")
                log.curves(done, loss=loss)
            if self.step % recipe.save_every == 0:
                self._save()

    @property
    def _pooled(self) -> PooledMapsNetwork:
        """The network, for what a recipe allows with networks that pool their class maps alone."""
        return cast(PooledMapsNetwork, self.network)

    def _anneal(self) -> None:
        """Set k of the pooling for this epoch: from all cells down to the network's own k, in equal ratios."""
        pooling, pool = self._pooled.pooling, self._pooled.pool
        left = max(0.0, 1 - self.epoch / self.recipe.anneal)
        cells = (self.recipe.crop_size // NETWORK_STRIDE) ** 2
        pool.k_max, pool.k_min = (round(k * (cells / k) ** left) for k in (pooling.k_max, pooling.k_min))

    def update(self, batch: Batch) -> Tensor:
        """Take one step of the optimizer on this process's part of a batch.

        Returns the loss of the whole batch on the device, without that of the auxiliary targets.
        """
        self.optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = self.recipe.accumulate * self.group.size
        weights = self._class_weights(batch.labels)
        for part in batch.chunks(self.recipe.accumulate):
            if part.inside is not None:
                share = self._box_loss(part) / parts
                loss += share.detach()
            elif self.head is None:
                share = self._loss(*self._training_outputs(part), weights) / parts
                loss += share.detach()
            else:
                scores, features = self._forward_with_features(part.crops)
                share = self._loss(scores, part.labels, weights) / parts
                loss += share.detach()
                share = share + self.recipe.auxiliary / parts * self.head.loss(features, part.traits.to(self.device))
            self.scaler.scale(share).backward()  # type: ignore[no-untyped-call]
        self.group.sum_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.averaged.update_parameters(self.network)
        if isinstance(self.scheduler, OneCycleLR):
            self.scheduler.step()
        return self.group.sum(loss)

    def _end_epoch(self, log: Log) -> None:
        loss = float(self.loss_sum) / self.steps
        val_loss, val_auc = self.validate() if self.group.first else (math.nan, None)
        val_loss, shared_auc = self.group.from_first(val_loss, math.nan if val_auc is None else val_auc)
        val_auc = None if math.isnan(shared_auc) else shared_auc
        if not np.isfinite([loss, val_loss]).all():
            raise UsageError(f"the loss of epoch {self.epoch + 1} is not finite; lower the recipe's learning_rate")
        rate = self.optimizer.param_groups[0]["lr"]
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(val_loss)
        elif not isinstance(self.scheduler, OneCycleLR):
            self.scheduler.step()
        self.epoch, self.step = self.epoch + 1, 0
        self.loss_sum.zero_()
        self._count_time()
        facts = {"epoch": self.epoch, "loss": loss, "val_loss": val_loss, "val_mean_auc": val_auc, "rate": rate}
        score = val_loss if self.recipe.select == "loss" else -cast(float, val_auc)
        self.worse += 1
        if better := score < self.best:
            self.best, self.worse = score, 0
            self._write("best", facts)
        self._write("last", facts)
        self._save()
        auc = "undefined" if val_auc is None else f"{val_auc:.4f}"
        log.line(
            f"epoch {self.epoch}: loss {loss:.4f}, validation loss {val_loss:.4f}, mean AUC {auc}, rate {rate:.0e}"
            + (", the best so far" if better else "")
        )
        log.curves(self.epoch * self.steps, epoch_loss=loss, val_loss=val_loss, val_mean_auc=val_auc, rate=rate)

    @torch.no_grad()
    def validate(self) -> tuple[float, float | None]:
        """Loss and mean AUC of the validation images' centre crops; the mean is over findings with both classes."""
        network = cast(CropNetwork, self.averaged.module).eval()
        total, scores, labels = 0.0, [], []
        weights = self._class_weights(self.images.known_labels(self.val), shared=False)
        batches: Iterable[Batch] = self.images.validation(self.val, self.recipe.batch // self.recipe.accumulate)
        for batch in batches:
            part = self._forward(network, batch.crops)
            total += float(self._loss(part, batch.labels, weights)) * len(part)
            scores.append(part.cpu().numpy())
            labels.append(batch.labels.numpy())
        if not np.isfinite(total):
            return total, None
        return total / len(self.val), _mean_auc(np.concatenate(scores), np.concatenate(labels))

    def _forward(self, network: CropNetwork, crops: Tensor) -> Tensor:
        """From uint8 crops [B, H, W] to float32 logits [B, 14]."""
        pixels = self._normalised(crops)
        with self._autocast():
            scores: Tensor = network(pixels)
        return scores.float()

    def _training_outputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the network learns from a batch: float32 logits and labels, as `CropNetwork.training_outputs` says."""
        pixels, labels = self._normalised(batch.crops), batch.labels.to(self.device)
        with self._autocast():
            scores, labels = self.network.training_outputs(pixels, labels)
        return scores.float(), labels

    def _box_loss(self, batch: Batch) -> Tensor:
        """The loss of a batch with boxes (Li et al. 2018)."""
        assert batch.inside is not None  # noqa: S101 - for the type checker
        with self._autocast():
            scores, patches = self.network.outputs_and_maps(self._normalised(batch.crops))
        assert patches is not None  # noqa: S101 - for the type checker
        labels, inside = batch.labels.to(self.device), batch.inside.to(self.device)
        return box_cross_entropy(scores.float(), patches.float(), labels, inside, self.recipe.box_weight)

    def _forward_with_features(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """From uint8 crops [B, H, W] to float32 logits [B, 14] and the features [B, channels, h, w] that give them."""
        pixels, network = self._normalised(crops), self._pooled
        with self._autocast():
            features = network.activations(pixels)
            scores: Tensor = network.pool(network.transfer(features))
        return scores.float(), features

    def _normalised(self, crops: Tensor) -> Tensor:
        pixels = crops.to(self.device, non_blocking=True)[:, None].float() / 255
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.mixed)

    def _class_weights(self, labels: Tensor, *, shared: bool = True) -> ClassWeights | None:
        """The weights for these labels [B, 14], together with those of the other processes if the batch is shared."""
        if self.recipe.loss == "bce":
            return None
        if self.recipe.loss == "w-cel-finding":
            return self.finding_weights
        counts = torch.stack([labels.nansum(dtype=torch.float64), (~labels.isnan()).sum()]).to(self.device)
        return class_weights(*(self.group.sum(counts) if shared else counts))

    def _loss(self, scores: Tensor, labels: Tensor, weights: ClassWeights | None) -> Tensor:
        return cross_entropy(scores, labels.to(self.device), weights)

    def _write(self, name: str, facts: dict[str, Any]) -> None:
        if not self.group.first:
            return
        recipe = self.recipe
        training = {
            **facts,
            "images": {"train": len(self.train), "val": len(self.val)},
            "split_hash": self.identity["split"],
            "recipe": dataclasses.asdict(recipe),
            "hours": round(self.seconds / 3600, 2),
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
        }
        sizes = recipe.image_size, recipe.crop_size
        with replacing(self.out / f"{name}.safetensors") as partial:
            save_checkpoint(
                cast(CropNetwork, self.averaged.module),
                partial,
                weights="trained",
                setting=recipe.setting,
                sizes=sizes,
                training=training,
            )

    def _save(self) -> None:
        if not torch.isfinite(self.loss_sum):
            raise UsageError(f"the loss of epoch {self.epoch + 1} is not finite; lower the recipe's learning_rate")
        state = {name: part.state_dict() for name, part in self._stateful_parts()}
        self._count_time()
        position = {name: getattr(self, name) for name in COUNTERS}
        position["loss_sum"] = float(self.loss_sum)
        if self.group.first:
            save_state(self.out / STATE_FILE, {"identity": self.identity, **state, **position})

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds, self._saved = self.seconds + now - self._saved, now

    def _stateful_parts(self) -> list[tuple[str, Any]]:
        return [(name, part) for name in STATEFUL_PARTS if (part := getattr(self, name)) is not None]

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self._stateful_parts():
            part.load_state_dict(state[name])
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.loss_sum += state["loss_sum"]


def _mean_auc(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]) -> float | None:
    """The mean over the findings that have both classes among their known labels."""
    areas = [
        evaluate(["finding"], column[known, None], truth[known, None], np.arange(known.sum()), resamples=0).mean_auc
        for column, truth in zip(scores.T, labels.T, strict=True)
        if (known := ~np.isnan(truth)).any()
    ]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None


def _has(labels: npt.NDArray[np.uint8], value: int) -> npt.NDArray[np.bool_]:
    """Which findings have this label in some image, [14]."""
    found: npt.NDArray[np.bool_] = (labels == value).any(0)
    return found


def set_prior_bias(network: PooledMapsNetwork, labels: npt.NDArray[np.uint8]) -> None:
    """Set the bias of the transfer layer so that constant maps give each finding its frequency in labels [N, 14]."""
    frequency = known_labels(labels).nanmean(0).nan_to_num().clamp(0.5 / len(labels), 1 - 0.5 / len(labels))
    bias = torch.logit(frequency) / (1 + network.pooling.alpha)
    with torch.no_grad():
        network.get_parameter("transfer.conv.bias").copy_(bias.repeat_interleave(network.transfer.maps_per_finding))
