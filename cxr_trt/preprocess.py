"""Grey pixels of any size to the network's input: the only resize in the project."""

import cv2
import numpy as np
import numpy.typing as npt

PREPROCESSING = (
    "1: display grey 0..255 (DICOM: modality LUT, VOI LUT or window, MONOCHROME1 inverted; colour: BT.601 luma), "
    "stretched to a square by area averaging, rounded half to even"
)
"""Named in every specification; change the number with any change to `preprocess` or to `cxr_trt.images`."""


def preprocess(pixels: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.uint8]:
    """Resize display grey to a square.

    Args:
        pixels: float32 [H, W], 0 (black) to 255 (white).
        size: side of the result in pixels.

    Returns:
        uint8 [size, size]. The aspect ratio is not kept (paper, sec. 4.2: "resized to 512 x 512").
    """
    square = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(square), 0, 255).astype(np.uint8)
