"""The built-in pictures on which every graph is checked."""

import numpy as np
import numpy.typing as npt

from cxr_trt.views import Size


def check_pictures(size: Size | int) -> npt.NDArray[np.uint8]:
    """The built-in pictures, uint8 [2, 1, height, width]: soft lung-like shapes on a gradient, and noise."""
    height, width = Size.of(size)
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    lungs = sum(np.exp(-(((x - cx) / 0.13) ** 2) - ((y - 0.5) / 0.3) ** 2) for cx in (0.3, 0.7))
    chest = np.clip(120 + 120 * y - 150 * lungs, 0, 255)
    noise = np.random.default_rng(0).integers(0, 256, (height, width))
    pictures: npt.NDArray[np.uint8] = np.stack([chest, noise]).astype(np.uint8)
    return pictures[:, None]
