"""Where class maps lie on an X-ray: from cells of the map to pixels of the original image."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cxr_trt.images.preprocess import fitted_part
from cxr_trt.spec import Specification


class Rectangle(NamedTuple):
    """A rectangle in pixels; the origin is the upper left corner of the picture."""

    y: float
    x: float
    height: float
    width: float


def map_rectangle(spec: Specification, height: int, width: int) -> Rectangle:
    """The part of a picture that the class maps cover; it undoes `cxr_trt.images.preprocess.preprocess` and the crops.

    Args:
        spec: the specification of the engine that made the maps.
        height: height of the picture in pixels.
        width: width of the picture in pixels.
    """
    region = spec.class_map_region
    y, x, rows, columns = fitted_part(height, width, spec.image_size, spec.fit)
    down, across = rows / spec.image_size.height, columns / spec.image_size.width
    return Rectangle(y + region.y * down, x + region.x * across, region.height * down, region.width * across)


def scaled(rectangle: Rectangle, down: float, across: float) -> Rectangle:
    """The same rectangle on a picture that is `down` times as high and `across` times as wide."""
    return Rectangle(rectangle.y * down, rectangle.x * across, rectangle.height * down, rectangle.width * across)


def upsample(
    class_map: npt.NDArray[np.float32], rectangle: Rectangle, height: int, width: int
) -> tuple[npt.NDArray[np.float32], tuple[slice, slice]]:
    """Enlarge a class map to the pixels of a picture, by cubic interpolation clipped to the map's own range.

    Args:
        class_map: float32 [h, w].
        rectangle: the part of the picture that the map covers, in pixels.
        height: height of the picture in pixels.
        width: width of the picture in pixels.

    Returns:
        float32 [rows, columns], and the slices of the picture that it covers: the rectangle rounded to whole pixels, at
        least one in each direction, without what lies beyond the picture.
    """
    rows = _whole_pixels(rectangle.y, rectangle.height, height)
    columns = _whole_pixels(rectangle.x, rectangle.width, width)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    if min(rectangle.y, rectangle.x) < 0:  # the picture was padded
        down, across = class_map.shape[0] / rectangle.height, class_map.shape[1] / rectangle.width
        cells = np.array(
            [
                [across, 0, (columns.start + 0.5 - rectangle.x) * across - 0.5],
                [0, down, (rows.start + 0.5 - rectangle.y) * down - 0.5],
            ]
        )
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        smooth = cv2.warpAffine(class_map, cells, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    else:
        smooth = cv2.resize(class_map, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, class_map.min(), class_map.max()), (rows, columns)


def _whole_pixels(start: float, length: float, size: int) -> slice:
    first = max(0, min(round(start), size - 1))
    return slice(first, max(first + 1, min(round(start + length), size)))


REGION_PARTS_PER_CELL = 8  # outlines of regions are accurate to this fraction of a cell, in both directions
REGION_THRESHOLD = 180 / 255
"""A region is where a map exceeds this fraction of its range, counted from its smallest value. It is the higher of the
two thresholds with which Wang et al. (2017, CVPR, "Bounding Box Generation") drew boxes on ChestX-ray8, not fitted to
any box."""


class Region(NamedTuple):
    """Where a finding is, in pixels of the picture.

    box: around the strongest connected region of the finding's map. peak: (y, x) of the map's largest value.
    """

    box: Rectangle
    peak: tuple[float, float]


def strongest_region(class_map: npt.NDArray[np.float32], rectangle: Rectangle) -> Region:
    """The connected region of the thresholded map that contains its maximum. Cells connect by side or corner.

    Args:
        class_map: float32 [h, w].
        rectangle: the part of the picture that the map covers, in pixels.
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
    indices = np.flatnonzero(filled)
    return int(indices[0]), int(indices[-1]) + 1
