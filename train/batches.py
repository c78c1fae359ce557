"""Batches of random crops. What a step sees depends on seed, epoch and step alone, so a resumed run sees the same."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]  # rows, offsets (y, x), mirrored
Batch = tuple[Tensor, Tensor]  # crops uint8 [B, crop, crop], labels float32 [B, 14]


class Images:
    """Decoded images uint8 [N, size, size] and their labels [N, 14], cut to crops of `crop_size` pixels."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], crop_size: int) -> None:
        self.pixels, self.labels, self.crop_size = pixels, labels, crop_size

    def training(
        self, rows: npt.NDArray[np.int64], batch: int, *, seed: int, epoch: int, start: int
    ) -> Iterator[Batch]:
        """An epoch's batches from step `start` on: in random order, cropped at random, half of them mirrored.

        The rest that does not fill a batch is left out of the epoch (paper, sec. 4.2, for crops and mirroring).
        """
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(rows)
        offsets = rng.integers(0, self.pixels.shape[1] - self.crop_size + 1, (len(rows), 2))
        mirrored = rng.integers(0, 2, len(rows)).astype(bool)
        places = [slice(step * batch, (step + 1) * batch) for step in range(start, len(rows) // batch)]
        return self._ahead((order[place], offsets[place], mirrored[place]) for place in places)

    def validation(self, rows: npt.NDArray[np.int64], batch: int) -> Iterator[Batch]:
        """All images in order, their centre crop."""
        middle = (self.pixels.shape[1] - self.crop_size) // 2
        parts = (rows[start : start + batch] for start in range(0, len(rows), batch))
        return self._ahead((part, np.full((len(part), 2), middle), np.zeros(len(part), bool)) for part in parts)

    def _ahead(self, parts: Iterable[Part]) -> Iterator[Batch]:
        """Read the next batch while the last one is used."""
        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for part in parts:
                coming = pool.submit(self._cut, part)
                if waiting:
                    yield waiting.result()
                waiting = coming
            if waiting:
                yield waiting.result()

    def _cut(self, part: Part) -> Batch:
        rows, offsets, mirrored = part
        size = self.crop_size
        crops = np.empty((len(rows), size, size), np.uint8)
        for crop, row, (y, x), mirror in zip(crops, rows, offsets, mirrored, strict=True):
            view = self.pixels[row, y : y + size, x : x + size]
            crop[:] = view[:, ::-1] if mirror else view
        return torch.from_numpy(crops), torch.from_numpy(self.labels[rows].astype(np.float32))
