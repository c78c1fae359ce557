"""Where class maps lie on an X-ray: from cells of the map to pixels of the original image."""

from collections.abc import Sequence
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
    fine = _refined(class_map)
    regions, boxes = _connected(fine, REGION_THRESHOLD)
    y, x = np.unravel_index(np.argmax(fine), fine.shape)
    down, across = rectangle.height / fine.shape[0], rectangle.width / fine.shape[1]
    peak = (rectangle.y + (float(y) + 0.5) * down, rectangle.x + (float(x) + 0.5) * across)
    return Region(_placed(boxes[regions[y, x] - 1], fine, rectangle), peak)


def all_regions(
    class_map: npt.NDArray[np.float32], rectangle: Rectangle, thresholds: Sequence[float]
) -> list[Rectangle]:
    """The boxes around all connected regions of the map at each threshold; equal boxes are one.

    Args:
        class_map: float32 [h, w].
        rectangle: the part of the picture that the map covers, in pixels.
        thresholds: fractions of the map's range, counted from its smallest value.
    """
    fine = _refined(class_map)
    boxes = (tuple(box) for threshold in thresholds for box in _connected(fine, threshold)[1])
    return [_placed(box, fine, rectangle) for box in dict.fromkeys(boxes)]


def _refined(class_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rows, columns = (length * REGION_PARTS_PER_CELL for length in class_map.shape)
    return np.asarray(cv2.resize(class_map, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32)


def _connected(fine: npt.NDArray[np.float32], threshold: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The number of each pixel's region, from 1, or 0 outside; and the regions' boxes (left, top, width, height)."""
    low, high = float(fine.min()), float(fine.max())
    above = (fine >= low + threshold * (high - low)).astype(np.uint8)
    _, regions, facts, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    return np.asarray(regions, np.int32), np.asarray(facts[1:, : cv2.CC_STAT_AREA], np.int32)


def _placed(box: Sequence[int] | npt.NDArray[np.int32], fine: npt.NDArray[np.float32], place: Rectangle) -> Rectangle:
    """A box (left, top, width, height) of the refined map in pixels of the picture."""
    left, top, width, height = map(int, box)
    down, across = place.height / fine.shape[0], place.width / fine.shape[1]
    return Rectangle(place.y + top * down, place.x + left * across, height * down, width * across)
