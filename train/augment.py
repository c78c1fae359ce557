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
    translation: pixels by which a crop is moved in either direction, down and across, also beyond the image.
    min_area: with 0.1, a crop shows 10 to 100 % of the image's area, wherever that is, with sides of a ratio from 3:4
        to 4:3 (torchvision's RandomResizedCrop); 0 cuts crops of their own size.
    """

    scale: float = 0.0
    rotation: float = 0.0
    contrast: float = 0.0
    translation: float = 0.0
    min_area: float = 0.0


@dataclass(frozen=True)
class Crops:
    """N crops to cut: the rows of their images [N], offsets (y, x) in pixels [N, 2], mirrored [N], and changes [N].

    shown: height and width that a crop shows, [N, 2], in sides of a crop. scale multiplies both.
    """

    rows: npt.NDArray[np.int64]
    offsets: Floats
    mirrored: npt.NDArray[np.bool_]
    shown: Floats
    scale: Floats
    rotation: Floats
    contrast: Floats
    shift: Floats

    def __getitem__(self, part: slice) -> "Crops":
        return Crops(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


def random_crops(
    rows: npt.NDArray[np.int64], side: int, margin: int, augmentation: Augmentation, rng: np.random.Generator
) -> Crops:
    """Shuffle the rows; crops are cut anywhere in their images, and half of them are mirrored.

    Args:
        rows: the images.
        side: of a crop, in pixels.
        margin: by how much the image is larger.
        augmentation: other random changes.
        rng: the source of all of it.
    """
    count = len(rows)
    order, offsets = rng.permutation(rows), rng.integers(0, margin + 1, (count, 2)).astype(np.float64)
    mirrored = rng.integers(0, 2, count).astype(bool)
    scale, rotation, contrast, shift = rng.uniform(-1, 1, (4, count))
    shown = np.ones((count, 2))
    if augmentation.min_area:
        shown = _random_sides(count, side + margin, augmentation.min_area, rng) / side
        offsets = np.floor(rng.uniform(0, 1, (count, 2)) * (side + margin - side * shown + 1))
    if augmentation.translation:
        offsets += rng.uniform(-1, 1, (count, 2)) * augmentation.translation
    return Crops(
        order,
        offsets,
        mirrored,
        shown,
        1 + augmentation.scale * scale,
        augmentation.rotation * rotation,
        1 + augmentation.contrast * contrast,
        255 * augmentation.contrast * shift,
    )


def center_crops(rows: npt.NDArray[np.int64], margin: int) -> Crops:
    """The centre crop of each image, unchanged."""
    count = len(rows)
    zeros, ones = np.zeros(count), np.ones(count)
    offsets = np.full((count, 2), float(margin // 2))
    return Crops(rows, offsets, np.zeros(count, bool), np.ones((count, 2)), ones, zeros, ones, zeros)


def _random_sides(count: int, image_side: int, min_area: float, rng: np.random.Generator) -> Floats:
    """Height and width in whole pixels, [count, 2]: an area that is uniform, a ratio whose logarithm is, in the image.

    torchvision draws again where a side does not fit; here the sides are drawn until all fit.
    """
    sides = np.full((count, 2), np.inf)
    while (wrong := (sides > image_side).any(1)).any():
        area = image_side**2 * rng.uniform(min_area, 1, wrong.sum())
        ratio = np.exp(rng.uniform(-1, 1, wrong.sum()) * np.log(4 / 3))
        sides[wrong] = np.round(np.sqrt(np.stack([area / ratio, area * ratio], 1)))
    sides[sides < 1] = 1
    return sides


def cut_crops(pixels: npt.NDArray[np.uint8], crops: Crops, size: int) -> npt.NDArray[np.uint8]:
    """Cut crops uint8 [N, size, size] from images uint8 [M, S, S]; outside an image all is black."""
    cut = np.empty((len(crops.rows), size, size), np.uint8)
    for i, (row, (y, x)) in enumerate(zip(crops.rows, crops.offsets, strict=True)):
        shown, room = size * crops.shown[i] * crops.scale[i], pixels.shape[1] - size
        is_cut = crops.rotation[i] == 0 and y.is_integer() and x.is_integer() and 0 <= min(y, x) <= max(y, x) <= room
        if is_cut and (shown == size).all():
            crop: cv2.typing.MatLike = pixels[row, int(y) : int(y) + size, int(x) : int(x) + size]
        else:
            crop = _warp(pixels[row], x, y, size, crops.shown[i], crops.scale[i], crops.rotation[i])
        if crops.contrast[i] != 1 or crops.shift[i] != 0:
            levels = (np.arange(256) - 127.5) * crops.contrast[i] + 127.5 + crops.shift[i]
            crop = cv2.LUT(np.ascontiguousarray(crop), np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        cut[i] = crop[:, ::-1] if crops.mirrored[i] else crop
    return cut


def _warp(
    image: npt.NDArray[np.uint8], x: float, y: float, size: int, shown: Floats, scale: float, degrees: float
) -> cv2.typing.MatLike:
    """What `shown` crops from (x, y) on hold, resized to a crop, rotated and scaled about its centre."""
    down, across = shown
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    matrix[0], matrix[1] = matrix[0] * across, matrix[1] * down
    matrix[:, 2] += x + (across - 1) / 2, y + (down - 1) / 2
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
