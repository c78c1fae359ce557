"""What a recipe trains of a network, at which rates, and with which optimizer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau

from cxr_trt.errors import UsageError
from cxr_trt.model.crop_network import CropNetwork
from train.auxiliary import AuxiliaryHead
from train.recipe import Recipe


def frozen_modules(network: CropNetwork, names: Iterable[str]) -> list[nn.Module]:
    """The modules of these names, without gradients from now on. Raises UsageError if the network has none such."""
    modules = dict(network.named_modules())
    if unknown := [name for name in names if name not in modules]:
        raise UsageError(
            f"frozen names {unknown[0]}, but the network has no such module; its parts are {_parts(network)}"
        )
    return [modules[name].requires_grad_(False) for name in names]


def parameter_groups(recipe: Recipe, network: CropNetwork, head: AuxiliaryHead | None) -> list[dict[str, Any]]:
    """What is trained, in groups with a rate each: the backbone, and all after it."""
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    backbone = [parameter for name, parameter in trained.items() if name.startswith(network.backbones)]
    rest = [parameter for name, parameter in trained.items() if not name.startswith(network.backbones)]
    rest += head.parameters() if head else ()
    rates = recipe.backbone_rate * recipe.learning_rate, recipe.learning_rate
    return [{"params": part, "lr": rate} for part, rate in zip((backbone, rest), rates, strict=True) if part]


def make_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The recipe's optimizer, for what `parameter_groups` gave."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    betas = (recipe.betas[0], recipe.betas[1])
    return torch.optim.AdamW(groups, recipe.learning_rate, betas, weight_decay=recipe.weight_decay)


def make_scheduler(
    recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int
) -> OneCycleLR | ReduceLROnPlateau | MultiStepLR:
    """The rule for the rates; `steps` is their number in an epoch."""
    if recipe.one_cycle:
        rates = recipe.epochs * steps + 1  # the last one is set after the last step
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, rates, cycle_momentum=False)
    if recipe.rate_steps:
        return MultiStepLR(optimizer, list(recipe.rate_steps), recipe.rate_factor)
    return ReduceLROnPlateau(optimizer, factor=recipe.rate_factor, patience=recipe.patience - 1, threshold=0)


def _parts(network: CropNetwork) -> str:
    return ", ".join(name for name, _ in network.named_modules() if name.count(".") == 1)
