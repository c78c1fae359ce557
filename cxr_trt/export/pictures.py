"""The built-in pictures on which every graph is checked."""

import numpy as np
import numpy.typing as npt


def check_pictures(size: int) -> npt.NDArray[np.uint8]:
    """The built-in pictures, uint8 [2, 1, size, size]: soft lung-like shapes on a gradient, and noise."""
    y, x = np.mgrid[:size, :size] / size
    lungs = sum(np.exp(-(((x - cx) / 0.13) ** 2) - ((y - 0.5) / 0.3) ** 2) for cx in (0.3, 0.7))
    chest = np.clip(120 + 120 * y - 150 * lungs, 0, 255)
    noise = np.random.default_rng(0).integers(0, 256, (size, size))
    pictures: npt.NDArray[np.uint8] = np.stack([chest, noise]).astype(np.uint8)
    return pictures[:, None]
