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
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxr_trt.errors import UsageError
from cxr_trt.model.checkpoint import save_checkpoint
from cxr_trt.model.crop_network import CropNetwork
from cxr_trt.model.network import PooledMapsNetwork
from cxr_trt.outputs import replacing
from cxr_trt.views import NETWORK_STRIDE
from train.auxiliary import AuxiliaryHead
from train.batches import Batch, LabelledImages
from train.boxes import grid_bytes
from train.group import Group
from train.inner_teacher import InnerTeachers
from train.log import Log
from train.objective import Objective
from train.optimizer import frozen_modules, make_optimizer, make_scheduler, parameter_groups
from train.recipe import Recipe
from train.start import set_prior_bias
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
        inner_teachers: InnerTeachers | None = None,
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
        known = b"".join((images.targets.numpy().tobytes(), images.traits.tobytes(), *grid_bytes(images.grids)))
        labels = hashlib.sha256(known).hexdigest()
        self.identity = {"recipe": json.dumps(recipe.chosen()), "split": split_hash, "labels": labels}
        if inner_teachers:
            self.identity["inner teacher"] = " ".join(inner_teachers.sha256)
        network.part = recipe.part
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trained = network.requires_grad_(False).get_submodule(recipe.part).requires_grad_()
        self.frozen = frozen_modules(network, recipe.frozen)
        self.head = AuxiliaryHead(self._pooled.transfer.conv.in_channels).to(device) if recipe.auxiliary else None
        if recipe.prior_bias and not (out / STATE_FILE).exists():
            set_prior_bias(self._pooled, images.labels[train])
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]  # with 0 a copy
        self.averaged = AveragedModel(network, device, multi_avg_fn=average, use_buffers=True)
        groups = parameter_groups(recipe, network, self.head)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = make_optimizer(recipe, groups)
        self.scheduler = make_scheduler(recipe, self.optimizer, self.steps)
        self.objective = Objective(recipe, network, self.head, images.labels[train], group, inner_teachers)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.objective.precision == torch.float16)
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
            augmentation=recipe.augmentation,
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

        Returns the loss of the whole batch on the device, without those that are added to it.
        """
        self.optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = self.recipe.accumulate * self.group.size
        weights = self.objective.class_weights(batch.labels)
        for part in batch.chunks(self.recipe.accumulate):
            share, auxiliary = self.objective.losses(part, weights)
            loss += share.detach() / parts
            self.scaler.scale((share + auxiliary) / parts).backward()  # type: ignore[no-untyped-call]
        self.group.sum_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.averaged.update_parameters(self.network)
        if isinstance(self.scheduler, OneCycleLR):
            self.scheduler.step()
        return self.group.sum(loss)

    def _end_epoch(self, log: Log) -> None:
        loss = float(self.loss_sum) / self.steps
        val_loss, val_auc = self._validate() if self.group.first else (math.nan, None)
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

    def _validate(self) -> tuple[float, float | None]:
        network = cast(CropNetwork, self.averaged.module).eval()
        return self.objective.validate(network, self.images, self.val)

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
            **({"inner_teachers": teachers.sha256} if (teachers := self.objective.inner_teachers) else {}),
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


def _has(labels: npt.NDArray[np.uint8], value: int) -> npt.NDArray[np.bool_]:
    """Which findings have this label in some image, [14]."""
    found: npt.NDArray[np.bool_] = (labels == value).any(0)
    return found
