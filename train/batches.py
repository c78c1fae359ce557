"""Batches of random crops. They depend on seed, epoch and step alone, so that a resumed run sees the same ones."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_trt.views import NETWORK_STRIDE
from train.augment import Augmentation, Crops, center_crops, cut_crops, random_crops
from train.boxes import Grid
from train.data import UNKNOWN


class Batch(NamedTuple):
    """Crops uint8 [B, planes * crop, crop], labels float32 [B, 14], traits float32 [B, 3] (`train.data.TRAITS`).

    A label or trait that is not known is NaN.
    inside: bool [B, 14, P, P], the patches that boxes touch, if boxes are learned.
    """

    crops: Tensor
    labels: Tensor
    traits: Tensor
    inside: Tensor | None = None

    def chunks(self, parts: int) -> Iterator["Batch"]:
        """Divide into equal parts."""
        yield from map(Batch, *(tensor.chunk(parts) for tensor in self if tensor is not None))


def known_labels(labels: npt.NDArray[np.uint8]) -> Tensor:
    """float32 of the same shape: NaN in place of `train.data.UNKNOWN`."""
    return torch.from_numpy(np.where(labels == UNKNOWN, np.nan, labels).astype(np.float32))


class LabelledImages:
    """Decoded images uint8 [N, size, size] with labels [N, 14] and traits [N, 3], to be cut to `crop_size` pixels.

    targets: float32 [N, 14], what is learned: the labels, or what `teach` made of them; NaN where unknown.
    further: more X-rays of the same studies, alike; each is cut as the first one, and below it in the crops.
    grids: the boxes of some images, by row, if boxes are learned; crops must then be whole images.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8],
        traits: npt.NDArray[np.float32],
        crop_size: int,
        further: Sequence[npt.NDArray[np.uint8]] = (),
        grids: Mapping[int, Grid] | None = None,
    ) -> None:
        self.grids = grids or {}
        self.planes = (pixels, *further)
        self.pixels, self.labels, self.traits, self.crop_size = pixels, labels, traits, crop_size
        self._margin = pixels.shape[1] - crop_size
        self.targets = known_labels(labels)

    def teach(self, rows: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], share: float) -> None:
        """Mix a teacher's probabilities [n, 14] of these images into what is learned; they stand for unknown labels.

        Cross-entropy is linear in its targets, so learning the mixture is learning both, weighted with their shares.
        """
        taught = torch.from_numpy(probabilities)
        self.targets[rows] = torch.where(
            self.targets[rows].isnan(), taught, (1 - share) * self.targets[rows] + share * taught
        )

    def training(
        self,
        rows: npt.NDArray[np.int64],
        batch: int,
        *,
        augmentation: Augmentation,
        seed: int,
        epoch: int,
        start: int,
        part: tuple[int, int] = (0, 1),
        spread: int = 0,
    ) -> Iterator[Batch]:
        """The batches of an epoch from step `start` on, in random order, cropped at random and half of them mirrored.

        Crops and mirroring are the paper's (sec. 4.2). Images that do not fill a batch are left out of the epoch.

        Args:
            rows: the training images.
            batch: images per batch.
            augmentation: other random changes.
            seed: random seed of the training.
            epoch: number of the epoch, from 0.
            start: number of the first step, from 0.
            part: (i, n) for part i of n equal parts of each batch.
            spread: pixels, a multiple of NETWORK_STRIDE, by which the crops of a batch may be larger or smaller than
                `crop_size`; all crops of a batch have the same size.
        """
        crops = random_crops(rows, self.crop_size, self._margin, augmentation, np.random.default_rng((seed, epoch)))
        number, parts = part
        share, steps, most = batch // parts, len(rows) // batch, spread // NETWORK_STRIDE
        strides = np.random.default_rng((seed, epoch, 1)).integers(-most, most + 1, steps)
        sides = self.crop_size + NETWORK_STRIDE * strides
        starts = ((step, step * batch + number * share) for step in range(start, steps))
        return self._ahead((crops[first : first + share], int(sides[step])) for step, first in starts)

    def validation(self, rows: npt.NDArray[np.int64], batch: int) -> Iterator[Batch]:
        """The centre crops of all images, in order."""
        crops = center_crops(rows, self._margin)
        return self._ahead((crops[start : start + batch], self.crop_size) for start in range(0, len(rows), batch))

    def _ahead(self, parts: Iterable[tuple[Crops, int]]) -> Iterator[Batch]:
        """Read the next batch while the current one is used."""
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for part in parts:
                coming = pool.submit(self._read, *part)
                if waiting:
                    yield waiting.result()
                waiting = coming
            if waiting:
                yield waiting.result()

    def _read(self, crops: Crops, side: int) -> Batch:
        if side != self.crop_size:
            margin = self.pixels.shape[1] - side
            crops = dataclasses.replace(crops, offsets=crops.offsets * margin // self._margin)
        pixels = torch.from_numpy(np.concatenate([cut_crops(plane, crops, side) for plane in self.planes], 1))
        labels, traits = self.targets[crops.rows], torch.from_numpy(self.traits[crops.rows])
        return Batch(pixels, labels, traits, self._inside(crops) if self.grids else None)

    def _inside(self, crops: Crops) -> Tensor:
        """The patches that boxes touch, mirrored as the crops are; bool [B, 14, P, P]."""
        none = np.zeros_like(next(iter(self.grids.values())))
        grids = [self.grids.get(int(row), none) for row in crops.rows]
        mirrored = zip(grids, crops.mirrored, strict=True)
        return torch.from_numpy(np.stack([grid[..., ::-1] if mirror else grid for grid, mirror in mirrored]))
