"""Where class maps lie on an X-ray: from cells to pixels of the file's own picture."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.spec import Specification


class Rectangle(NamedTuple):
    """In pixels of a picture, origin at its upper left corner."""

    y: float
    x: float
    height: float
    width: float


def map_rectangle(spec: Specification, height: int, width: int) -> Rectangle:
    """What the class maps cover of a picture: the inverse of `cxr_trt.images.preprocess.preprocess` and of the crops.

    Args:
        spec: of the engine that made the maps.
        height: of the picture in pixels.
        width: of the picture in pixels.
    """
    offset, side = spec.class_map_region
    y, x, rows, columns = 0, 0, height, width
    if spec.fit == "center-square":
        rows = columns = min(height, width)
        y, x = height // 2 - rows // 2, width // 2 - columns // 2
    down, across = rows / spec.image_size, columns / spec.image_size
    return Rectangle(y + offset * down, x + offset * across, side * down, side * across)


def scaled(rectangle: Rectangle, down: float, across: float) -> Rectangle:
    """The same on a picture that is `down` times as high and `across` times as wide."""
    return Rectangle(rectangle.y * down, rectangle.x * across, rectangle.height * down, rectangle.width * across)


def upsample(
    class_map: npt.NDArray[np.float32], rectangle: Rectangle, height: int, width: int
) -> tuple[npt.NDArray[np.float32], tuple[slice, slice]]:
    """A class map in the pixels of a picture, by cubic interpolation that leaves the map's range nowhere.

    Args:
        class_map: float32 [h, w].
        rectangle: that it covers, in pixels of the picture.
        height: of the picture.
        width: of the picture.

    Returns:
        float32 [rows, columns], and where on the picture they lie: the rectangle in whole pixels, at least one.
    """
    rows, columns = _whole(rectangle.y, rectangle.height, height), _whole(rectangle.x, rectangle.width, width)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    smooth = cv2.resize(class_map, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, class_map.min(), class_map.max()), (rows, columns)


def _whole(start: float, length: float, most: int) -> slice:
    first = min(round(start), most - 1)
    return slice(first, max(first + 1, min(round(start + length), most)))


REGION_PARTS_PER_CELL = 8  # parts of a cell that the outline of a region is found to, down and across
REGION_THRESHOLD = 180 / 255
"""Of the way from a map's smallest to its largest value: the higher of the two thresholds with which Wang et al. (2017,
CVPR, "Bounding Box Generation") drew boxes on ChestX-ray8. Taken from there and not fitted to any box."""


class Region(NamedTuple):
    """Where a finding is: the box around the strongest connected region of its map, and the map's highest point (y, x).

    Both in pixels of the picture.
    """

    box: Rectangle
    peak: tuple[float, float]


def strongest_region(class_map: npt.NDArray[np.float32], rectangle: Rectangle) -> Region:
    """The connected region of the thresholded map that holds its maximum; neighbours touch by side or corner.

    Args:
        class_map: float32 [h, w].
        rectangle: that it covers, in pixels of the picture.
    """
    rows, columns = (length * REGION_PARTS_PER_CELL for length in class_map.shape)
    fine = cv2.resize(class_map, (columns, rows), interpolation=cv2.INTER_CUBIC)
    low, high = float(fine.min()), float(fine.max())
    above = (fine >= low + REGION_THRESHOLD * (high - low)).astype(np.uint8)
    _, regions = cv2.connectedComponents(above, connectivity=8)
    y, x = np.unravel_index(np.argmax(fine), fine.shape)
    inside = regions == regions[y, x]
    (top, bottom), (left, right) = (_ends(inside.any(axis)) for axis in (1, 0))
    down, across = rectangle.height / rows, rectangle.width / columns
    box = Rectangle(
        rectangle.y + top * down, rectangle.x + left * across, (bottom - top) * down, (right - left) * across
    )
    return Region(box, (rectangle.y + (float(y) + 0.5) * down, rectangle.x + (float(x) + 0.5) * across))


def _ends(filled: npt.NDArray[np.bool_]) -> tuple[int, int]:
    places = np.flatnonzero(filled)
    return int(places[0]), int(places[-1]) + 1
