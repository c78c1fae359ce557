"""Cheap checks whether a picture is a frontal chest X-ray. They only warn: every image is scored, whatever they say."""

import cv2
import numpy as np
import numpy.typing as npt

MEAN_CHEST_LEFT_HALF = np.array(
    [
        [-99, -84, -58, 5, -16, -4, -30, -5, 14, 5, -53, -8, 5, 0, -47, 13],
        [-13, -1, -18, 39, -27, 10, 24, 61, -43, 30, 61, 80, -49, 42, 77, 89],
    ]
).reshape(8, 4)
_MEAN_CHEST = np.hstack([MEAN_CHEST_LEFT_HALF, MEAN_CHEST_LEFT_HALF[:, ::-1]])
STANDARD_CHEST = (_MEAN_CHEST - _MEAN_CHEST.mean()) / _MEAN_CHEST.std()
MEAN_CHEST_CELLS = 8
CHEST_CORRELATION_MIN = 0.2
"""Pictures that correlate less than this with the mean chest X-ray get a warning. MEAN_CHEST_LEFT_HALF is the left half
of its 8 x 8 cells, standardised (from the training part of a subset of ChestX-ray14). `python -m benchmarks
false-alarms` counts how often X-rays get this warning."""
NEGATIVE_CORRELATION_MAX = -0.4  # with a smaller correlation, black and white are exchanged

EMPTY_SHARE_MIN = 0.6  # if a larger share of the pixels has the same grey, the picture is almost empty
FLAT_DEVIATION_MAX = 4.0  # with a smaller standard deviation of the cells, in grey levels, it is almost constant
COLOUR_DISTANCE_MIN = 8.0  # with a larger mean distance between its channels, in levels of 255, it is coloured


def picture_doubts(image: npt.NDArray[np.uint8]) -> list[str]:
    """What is odd about a preprocessed image, uint8 [height, width]: no sentence or one."""
    cells = cv2.resize(image, (MEAN_CHEST_CELLS, MEAN_CHEST_CELLS), interpolation=cv2.INTER_AREA).astype(np.float64)
    deviation = float(cells.std())
    if deviation < FLAT_DEVIATION_MAX:
        return ["the picture is almost constant"]
    if _may_be_empty(image):
        share = cv2.calcHist([image], [0], None, [256], [0, 256]).max() / image.size
        if share > EMPTY_SHARE_MIN:
            return [f"the picture is almost empty, {share:.0%} of it is one grey"]
    correlation = float((cells * STANDARD_CHEST).mean()) / deviation
    if correlation < NEGATIVE_CORRELATION_MAX:
        return ["looks like a negative, with black and white exchanged"]
    if correlation < CHEST_CORRELATION_MIN:
        return ["does not look like an upright frontal chest X-ray"]
    return []


def _may_be_empty(image: npt.NDArray[np.uint8]) -> bool:
    """Whether one grey may have more than EMPTY_SHARE_MIN of the pixels. A no is certain, and faster than a histogram.

    Pixels of the upper half are paired with those of the lower half. At most 1 - EMPTY_SHARE_MIN of the pixels have
    another grey than the most frequent one, so at most so many pairs are unequal.
    """
    half = len(image) // 2
    pairs = image[:half] == image[half : 2 * half]
    return bool(pairs.size - np.count_nonzero(pairs) <= (1 - EMPTY_SHARE_MIN) * image.size + 1)


def is_coloured(samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bool:
    """Whether an image [H, W, 3] has more colour than a grey image that was saved as a colour image."""
    small = cv2.resize(samples, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    largest = np.iinfo(samples.dtype).max
    return float((small.max(2) - small.min(2)).mean()) * 255 / largest > COLOUR_DISTANCE_MIN
