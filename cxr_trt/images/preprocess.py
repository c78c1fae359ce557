"""Resizing grey pixels to the network's input: the only resize in the project that affects scores."""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Fit = Literal["stretch", "center-square"]

PREPROCESSING = (
    "2: display grey 0..255 (DICOM: modality LUT, VOI LUT or window, MONOCHROME1 inverted; colour: BT.601 luma), "
    "stretched to a square or cut to its central square, resized by area averaging, rounded half to even"
)
"""Part of every specification. Raise its number when `preprocess` or `cxr_trt.images` gives other pixels."""


def preprocess(pixels: npt.NDArray[np.float32], size: int, fit: Fit = "stretch") -> npt.NDArray[np.uint8]:
    """Resize display grey to a square.

    Args:
        pixels: float32 [H, W], 0 (black) to 255 (white).
        size: side of the result in pixels.
        fit: "stretch" keeps the whole image but not its aspect ratio (paper, sec. 4.2: "resized to 512 x 512");
            "center-square" keeps the aspect ratio but only the central square, as torchxrayvision does.

    Returns:
        uint8 [size, size].
    """
    if fit == "center-square":
        height, width = pixels.shape
        side = min(height, width)
        y, x = height // 2 - side // 2, width // 2 - side // 2
        pixels = pixels[y : y + side, x : x + side]
    square = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(square), 0, 255).astype(np.uint8)
