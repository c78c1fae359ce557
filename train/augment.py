"""Where a crop is cut from an image and how it is changed: drawn for a whole epoch, applied one by one."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes besides cropping and mirroring; 0 switches one off, as in the paper.

    scale: 0.1 shows 90 to 110 % of the crop's side. rotation: degrees to either side. contrast: 0.1 multiplies the
    distance from the middle grey by 0.9 to 1.1 and shifts the greys by up to 0.1 of their range.
    """

    scale: float = 0.0
    rotation: float = 0.0
    contrast: float = 0.0


@dataclass(frozen=True)
class Cuts:
    """N crops to come: the rows of their images [N], offsets (y, x) in pixels [N, 2], mirrored [N], and changes [N]."""

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    mirrored: npt.NDArray[np.bool_]
    scale: Floats
    rotation: Floats
    contrast: Floats
    shift: Floats

    def __getitem__(self, part: slice) -> "Cuts":
        return Cuts(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def random_cuts(rows: npt.NDArray[np.int64], room: int, augmentation: Augmentation, rng: np.random.Generator) -> Cuts:
    """Shuffle the rows; each crop lies anywhere within `room` pixels of either axis, half of them mirrored."""
    count = len(rows)
    order, offsets = rng.permutation(rows), rng.integers(0, room + 1, (count, 2))
    mirrored = rng.integers(0, 2, count).astype(bool)
    scale, rotation, contrast, shift = rng.uniform(-1, 1, (4, count))
    return Cuts(
        order,
        offsets,
        mirrored,
        1 + augmentation.scale * scale,
        augmentation.rotation * rotation,
        1 + augmentation.contrast * contrast,
        255 * augmentation.contrast * shift,
    )


def center_cuts(rows: npt.NDArray[np.int64], room: int) -> Cuts:
    """The centre crop of each image, unchanged."""
    count = len(rows)
    zeros, ones = np.zeros(count), np.ones(count)
    return Cuts(rows, np.full((count, 2), room // 2), np.zeros(count, bool), ones, zeros, ones, zeros)


def cut(pixels: npt.NDArray[np.uint8], cuts: Cuts, size: int) -> npt.NDArray[np.uint8]:
    """Cut crops uint8 [N, size, size] from images uint8 [M, S, S]; outside of an image all is black."""
    crops = np.empty((len(cuts.rows), size, size), np.uint8)
    for i, (row, (y, x)) in enumerate(zip(cuts.rows, cuts.offsets, strict=True)):
        if cuts.scale[i] == 1 and cuts.rotation[i] == 0:
            crop: cv2.typing.MatLike = pixels[row, y : y + size, x : x + size]
        else:
            crop = _warp(pixels[row], x, y, size, cuts.scale[i], cuts.rotation[i])
        if cuts.contrast[i] != 1 or cuts.shift[i] != 0:
            levels = (np.arange(256) - 127.5) * cuts.contrast[i] + 127.5 + cuts.shift[i]
            crop = cv2.LUT(np.ascontiguousarray(crop), np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        crops[i] = crop[:, ::-1] if cuts.mirrored[i] else crop
    return crops


def _warp(image: npt.NDArray[np.uint8], x: int, y: int, size: int, scale: float, degrees: float) -> cv2.typing.MatLike:
    """The crop at (x, y), turned and scaled about its own centre."""
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    matrix[:, 2] += x, y
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
