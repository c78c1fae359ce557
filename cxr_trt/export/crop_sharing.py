"""Computing overlapping crops only once where their results are equal (paper, sec. 4.2). The rewrite is exact.

The first operation that depends on a whole crop is the first gate (sec. 3.2). The layers before it, here called early,
give the same cells for a crop as for the whole image, except near the crop's edges inside the image ("cuts"): there the
crop sees padding where the image has pixels. So the early layers run once over the image and once over strips along the
cuts, and the early map of a crop is assembled from cells of both. Where two cuts meet, a square patch as wide as the
strips replaces them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cxr_trt.views import Size, View

EARLY_LAYERS = ((7, 2, 3), (3, 2, 1), *[(3, 1, 1)] * 6, (2, 2, 0))
"""Kernel, stride and padding of the early layers: stem, its pooling, the first dense block, the first transition."""
EARLY_STRIDE = 8  # pixels per cell of the early map


@dataclass(frozen=True)
class ImagePart:
    """A part of the image or of its mirror image over which the early layers run; in pixels."""

    mirrored: bool
    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Piece:
    """The cells [top, bottom) x [left, right) of the early map of `source`."""

    source: ImagePart
    top: int
    bottom: int
    left: int
    right: int


def depth(size: int) -> int:
    """How many cells of the early map differ because of padding, counted from a cut, for a part of `size` pixels."""
    start = end = 0  # cells that differ at the two ends
    for kernel, stride, padding in EARLY_LAYERS:
        outputs = (size + 2 * padding - kernel) // stride + 1
        start = -(-(start + padding) // stride)
        end = outputs - 1 - (size - end - kernel + padding) // stride
        size = outputs
    return max(start, end)


def crop_parts(views: Sequence[View], image_size: Size, crop_size: Size) -> list[ImagePart]:
    """The views as parts of the image. A mirrored view is cut from the mirror image, where left and right swap."""
    right = image_size.width - crop_size.width
    return [ImagePart(view.mirrored, view.y, right - view.x if view.mirrored else view.x, *crop_size) for view in views]


def pieces_of_views(views: Sequence[View], image_size: Size, crop_size: Size) -> list[list[list[Piece]]]:
    """Where the cells of each view's early map come from: rows of pieces, to be joined left to right, then downwards.

    Offsets must be multiples of 8 pixels, and a crop must be at least as wide and as high as a strip.
    """
    crops = crop_parts(views, image_size, crop_size)
    strips: Counter[tuple[bool, str, int]] = Counter()
    for crop in crops:
        for axis, offset, whole, part in zip("yx", (crop.y, crop.x), image_size, crop_size, strict=True):
            strips.update((crop.mirrored, axis, start) for start in _cuts(offset, whole, part).values())
    return [_assemble(crop, image_size, strips) for crop in crops]


def worth_sharing(views: Sequence[View], image_size: Size, crop_size: Size) -> bool:
    """Whether sharing pays: whether the shared parts have fewer pixels in total than the crops."""
    if any(side < _strip_width(side) for side in crop_size):
        return False
    pieces = (piece for lines in pieces_of_views(views, image_size, crop_size) for line in lines for piece in line)
    parts = {piece.source for piece in pieces}
    return sum(part.height * part.width for part in parts) < len(views) * crop_size.height * crop_size.width


def _assemble(crop: ImagePart, image_size: Size, strips: Counter[tuple[bool, str, int]]) -> list[list[Piece]]:
    y, x, mirrored = crop.y, crop.x, crop.mirrored
    pieces = []
    for rows, y_strip in _segments(y, image_size.height, crop.height):
        line = []
        for columns, x_strip in _segments(x, image_size.width, crop.width):
            # A strip that only this crop needs ends where the crop ends, so that the strip's corners are right too.
            is_own_y = y_strip is not None and strips[mirrored, "y", y_strip[0]] == 1
            is_own_x = x_strip is not None and strips[mirrored, "x", x_strip[0]] == 1
            vertical, horizontal = y_strip or (0, image_size.height), x_strip or (0, image_size.width)
            if is_own_x:
                vertical = (y, crop.height)
            elif is_own_y:
                horizontal = (x, crop.width)
            line.append(
                _piece(mirrored, vertical, horizontal, y + rows[0], y + rows[1], x + columns[0], x + columns[1])
            )
        pieces.append(line)
    return pieces


def _piece(
    mirrored: bool, vertical: tuple[int, int], horizontal: tuple[int, int], top: int, bottom: int, left: int, right: int
) -> Piece:
    """The piece for the pixels [top, bottom) x [left, right) of the image, taken from the early map of a part of it.

    vertical, horizontal: (start, size) of that part in pixels.
    """
    source = ImagePart(mirrored, vertical[0], horizontal[0], vertical[1], horizontal[1])
    rows = (top - source.y) // EARLY_STRIDE, (bottom - source.y) // EARLY_STRIDE
    columns = (left - source.x) // EARLY_STRIDE, (right - source.x) // EARLY_STRIDE
    return Piece(source, *rows, *columns)


def _cuts(offset: int, image_size: int, crop_size: int) -> dict[str, int]:
    """Where the strips along both ends of a crop start, along one axis; sizes are lengths along it.

    An end at the image border needs no strip.
    """
    width = _strip_width(crop_size)
    cuts = {}
    if offset > 0:
        cuts["start"] = offset
    if offset + crop_size < image_size:
        cuts["end"] = offset + crop_size - width
    return cuts


def _segments(offset: int, image_size: int, crop_size: int) -> list[tuple[tuple[int, int], tuple[int, int] | None]]:
    """A crop's extent along one axis, divided into segments.

    Returns:
        For each segment: its (start, end) in pixels of the crop, and the (start, size) of its strip in the image, or
        None if its cells come from the whole image.
    """
    reach, width = depth(crop_size) * EARLY_STRIDE, _strip_width(crop_size)
    cuts = _cuts(offset, image_size, crop_size)
    bounds = [0, reach if "start" in cuts else 0, crop_size - (reach if "end" in cuts else 0), crop_size]
    strips = [
        (cuts["start"], width) if "start" in cuts else None,
        None,
        (cuts["end"], width) if "end" in cuts else None,
    ]
    return [
        (segment, strip) for segment, strip in zip(pairwise(bounds), strips, strict=True) if segment[0] < segment[1]
    ]


def _strip_width(crop_size: int) -> int:
    """Width in pixels: as far as the padding on both sides of a strip reaches."""
    return 2 * depth(crop_size) * EARLY_STRIDE
