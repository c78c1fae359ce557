"""Where crops are cut from images and how they are changed: drawn for a whole epoch, then applied batch by batch."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes besides cropping and mirroring; 0 switches a change off, as in the paper.

    scale: with 0.1, a crop shows 90 to 110 % of its side.
    rotation: degrees in either direction.
    contrast: with 0.1, the distance of a grey from the middle grey is multiplied by 0.9 to 1.1, and all greys are
        shifted by up to 0.1 of their range.
    """

    scale: float = 0.0
    rotation: float = 0.0
    contrast: float = 0.0


@dataclass(frozen=True)
class Crops:
    """N crops to cut: the rows of their images [N], offsets (y, x) in pixels [N, 2], mirrored [N], and changes [N]."""

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    scale: Floats
    rotation: Floats
    contrast: Floats
    shift: Floats

    def __getitem__(self, part: slice) -> "Crops":
        return Crops(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def random_crops(
    rows: npt.NDArray[np.int64], margin: int, augmentation: Augmentation, rng: np.random.Generator
) -> Crops:
    """Shuffle the rows; offsets are 0 to `margin` pixels at random, and half of the crops are mirrored."""
    count = len(rows)
    order, offsets = rng.permutation(rows), rng.integers(0, margin + 1, (count, 2))
    mirrored = rng.integers(0, 2, count).astype(bool)
    scale, rotation, contrast, shift = rng.uniform(-1, 1, (4, count))
    return Crops(
        order,
        offsets,
        mirrored,
        1 + augmentation.scale * scale,
        augmentation.rotation * rotation,
        1 + augmentation.contrast * contrast,
        255 * augmentation.contrast * shift,
    )


def center_crops(rows: npt.NDArray[np.int64], margin: int) -> Crops:
    """The centre crop of each image, unchanged."""
    count = len(rows)
    zeros, ones = np.zeros(count), np.ones(count)
    return Crops(rows, np.full((count, 2), margin // 2), np.zeros(count, bool), ones, zeros, ones, zeros)


def cut_crops(pixels: npt.NDArray[np.uint8], crops: Crops, size: int) -> npt.NDArray[np.uint8]:
    """Cut crops uint8 [N, size, size] from images uint8 [M, S, S]; outside an image all is black."""
    cut = np.empty((len(crops.rows), size, size), np.uint8)
    for i, (row, (y, x)) in enumerate(zip(crops.rows, crops.offsets, strict=True)):
        if crops.scale[i] == 1 and crops.rotation[i] == 0:
            crop: cv2.typing.MatLike = pixels[row, y : y + size, x : x + size]
        else:
            crop = _warp(pixels[row], x, y, size, crops.scale[i], crops.rotation[i])
        if crops.contrast[i] != 1 or crops.shift[i] != 0:
            levels = (np.arange(256) - 127.5) * crops.contrast[i] + 127.5 + crops.shift[i]
            crop = cv2.LUT(np.ascontiguousarray(crop), np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        cut[i] = crop[:, ::-1] if crops.mirrored[i] else crop
    return cut


def _warp(image: npt.NDArray[np.uint8], x: int, y: int, size: int, scale: float, degrees: float) -> cv2.typing.MatLike:
    """The crop at (x, y), rotated and scaled about its centre."""
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    matrix[:, 2] += x, y
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
