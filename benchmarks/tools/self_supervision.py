"""SimSiam: a network that learns to see two crops of an X-ray alike, without labels.

X. Chen, K. He: Exploring Simple Siamese Representation Learning. CVPR 2021, arXiv 2011.10566, algorithm 1.
"""

from collections.abc import Iterator

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cxr_trt.model.edge import EdgeNetwork
from cxr_trt.systems.edge import EDGE
from train.augment import cut_crops, random_crops
from train.optimizer import frozen_modules
from train.recipe import Recipe

PROJECTED, HIDDEN = 512, 128  # width of the projection, and of the prediction's bottleneck
LEARNING_RATE = 3e-4  # of AdamW, falling to zero as half a cosine
REPORTED_STEPS = 20


def self_supervise(
    network: EdgeNetwork,
    pixels: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    recipe: Recipe,
    epochs: int,
) -> None:
    """Train the network's features without labels; what the recipe freezes stays as it is.

    Args:
        network: starts from what it has, such as ImageNet's weights.
        pixels: images uint8 [N, size, size].
        rows: those to learn from.
        recipe: crops, batch and random changes, which are those of the training with labels.
        epochs: passes over the images.
    """
    torch.manual_seed(recipe.seed)
    network.to(memory_format=torch.channels_last)
    network.requires_grad_(False).features.requires_grad_()
    frozen = frozen_modules(network, recipe.frozen)
    width = network.transfer.conv.in_channels
    projection = nn.Sequential(
        *(nn.Linear(width, PROJECTED, bias=False), nn.BatchNorm1d(PROJECTED), nn.ReLU()),
        *(nn.Linear(PROJECTED, PROJECTED, bias=False), nn.BatchNorm1d(PROJECTED, affine=False)),
    )
    prediction = nn.Sequential(
        nn.Linear(PROJECTED, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PROJECTED)
    )
    learned = [parameter for parameter in network.features.parameters() if parameter.requires_grad]
    heads = [*projection.parameters(), *prediction.parameters()]
    optimizer = torch.optim.AdamW([*learned, *heads], LEARNING_RATE, weight_decay=recipe.weight_decay)
    steps = len(rows) // recipe.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for epoch in range(epochs):
        network.train()
        for module in frozen:
            module.eval()
        pairs = _pairs(pixels, rows, recipe, epoch)
        for step, crops in enumerate(pairs, 1):
            projected = projection(network.features(crops).mean((2, 3)))
            loss = siamese_loss(projected, prediction(projected))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if step % REPORTED_STEPS == 0:
                spread = _spread(projected.detach())
                click.echo(f"without labels, epoch {epoch + 1}, step {step}: {loss:.4f}, spread {spread:.2f}", err=True)
    network.requires_grad_()


def _spread(projected: Tensor) -> float:
    """How far projections [N, width] point apart: about 1 for random ones, 0 if the network has made all alike."""
    spread: float = nn.functional.normalize(projected).std(0).mean().item() * projected.shape[1] ** 0.5
    return spread


def siamese_loss(projected: Tensor, predicted: Tensor) -> Tensor:
    """From 1, if each half's predictions point away from the other half's projections, down to -1 if they agree.

    Args:
        projected: [2 N, width]; the first half is of one crop of each X-ray, the second half of another.
        predicted: the same of what is predicted for the other crop.
    """
    other = projected.detach().roll(len(projected) // 2, 0)
    return -cosine_similarity(predicted, other).mean()


def _pairs(pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], recipe: Recipe, epoch: int) -> Iterator[Tensor]:
    """Batches of normalised crops [2 batch, 3, crop, crop]: one crop of each X-ray, then another of each."""
    margin = recipe.image_size - recipe.crop_size
    order = np.random.default_rng((recipe.seed, epoch)).permutation(rows)
    for start in range(0, len(rows) // recipe.batch * recipe.batch, recipe.batch):
        chosen = order[start : start + recipe.batch]
        views = []
        for view in range(2):
            rng = np.random.default_rng((recipe.seed, epoch, start, view))
            crops = random_crops(np.arange(len(chosen)), recipe.crop_size, margin, recipe.augmentation, rng)
            back = np.argsort(crops.rows)  # random_crops shuffles; the two views must be of the same X-rays in order
            views.append(cut_crops(pixels[chosen], crops, recipe.crop_size)[back])
        shown = torch.from_numpy(np.concatenate(views))[:, None].float() / 255
        yield ((shown - EDGE.mean[0]) / EDGE.std[0]).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
