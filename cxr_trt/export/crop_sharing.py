"""Crops that overlap, computed once where they are equal (paper, sec. 4.2; an exact identity).

The first operation that looks at a whole crop is the first gate (sec. 3.2). Everything before it, the early layers,
gives the same cells for a crop as for the whole image, except near a cut: there the crop sees padding where the image
has pixels. So the early layers run once over the image, once over strips along the cuts, and a crop's early map is put
together from cells of both. Where two cuts meet, a patch of their strips' width takes the strips' place.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cxr_trt.views import View

EARLY_LAYERS = ((7, 2, 3), (3, 2, 1), *[(3, 1, 1)] * 6, (2, 2, 0))
"""Kernel, stride and padding of the early layers: stem, its pooling, the first dense block, the first transition."""
EARLY_STRIDE = 8  # pixels to a cell of the early map


@dataclass(frozen=True)
class ImagePart:
    """A part of the image, or of its mirror image, that the early layers run over; in pixels."""

    mirrored: bool
    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Piece:
    """Cells [top, bottom) x [left, right) of the early map of `source`."""

    source: ImagePart
    top: int
    bottom: int
    left: int
    right: int


def depth(size: int) -> int:
    """Cells of the early map, counted from a cut, that padding reaches; of a part of `size` pixels."""
    start = end = 0  # cells that differ at either end
    for kernel, stride, padding in EARLY_LAYERS:
        outputs = (size + 2 * padding - kernel) // stride + 1
        start = -(-(start + padding) // stride)
        end = outputs - 1 - (size - end - kernel + padding) // stride
        size = outputs
    return max(start, end)


def crop_parts(views: Sequence[View], image_size: int, crop_size: int) -> list[ImagePart]:
    """The views as parts of the image. A mirrored view is cut from the mirror image, where its right is left."""
    return [
        ImagePart(
            view.mirrored, view.y, image_size - crop_size - view.x if view.mirrored else view.x, *(crop_size,) * 2
        )
        for view in views
    ]


def pieces_of_views(views: Sequence[View], image_size: int, crop_size: int) -> list[list[list[Piece]]]:
    """Where the cells of each view's early map come from: rows of pieces, to be joined left to right, then downwards.

    Sizes are sides in pixels; offsets are multiples of 8 pixels, and a crop is at least as wide as a strip.
    """
    wanted = crop_parts(views, image_size, crop_size)
    strips: Counter[tuple[bool, str, int]] = Counter()
    for crop in wanted:
        for axis, offset in (("y", crop.y), ("x", crop.x)):
            strips.update((crop.mirrored, axis, start) for start in _cuts(offset, image_size, crop_size).values())
    return [_assemble(crop, image_size, strips) for crop in wanted]


def worth_sharing(views: Sequence[View], image_size: int, crop_size: int) -> bool:
    """Whether the parts that are run have fewer pixels than the crops."""
    if crop_size < _strip_width(crop_size):
        return False
    pieces = (piece for lines in pieces_of_views(views, image_size, crop_size) for line in lines for piece in line)
    parts = {piece.source for piece in pieces}
    return sum(part.height * part.width for part in parts) < len(views) * crop_size**2


def _assemble(crop: ImagePart, image_size: int, strips: Counter[tuple[bool, str, int]]) -> list[list[Piece]]:
    y, x, crop_size, mirrored = crop.y, crop.x, crop.height, crop.mirrored
    whole = (0, image_size)
    pieces = []
    for rows, y_strip in _segments(y, image_size, crop_size):
        line = []
        for columns, x_strip in _segments(x, image_size, crop_size):
            # A strip that no other crop needs ends where this crop does, so that corners are right in it.
            own_y = y_strip is not None and strips[mirrored, "y", y_strip[0]] == 1
            own_x = x_strip is not None and strips[mirrored, "x", x_strip[0]] == 1
            vertical, horizontal = y_strip or whole, x_strip or whole
            if own_x:
                vertical = (y, crop_size)
            elif own_y:
                horizontal = (x, crop_size)
            line.append(
                _piece(mirrored, vertical, horizontal, y + rows[0], y + rows[1], x + columns[0], x + columns[1])
            )
        pieces.append(line)
    return pieces


def _piece(
    mirrored: bool, vertical: tuple[int, int], horizontal: tuple[int, int], top: int, bottom: int, left: int, right: int
) -> Piece:
    """The piece of pixels [top, bottom) x [left, right) of the image, from the rectangle of two (start, size)."""
    source = ImagePart(mirrored, vertical[0], horizontal[0], vertical[1], horizontal[1])
    rows = (top - source.y) // EARLY_STRIDE, (bottom - source.y) // EARLY_STRIDE
    columns = (left - source.x) // EARLY_STRIDE, (right - source.x) // EARLY_STRIDE
    return Piece(source, *rows, *columns)


def _cuts(offset: int, image_size: int, crop_size: int) -> dict[str, int]:
    """Where the strips along the two ends of a crop start; an end at the border of the image needs none."""
    width = _strip_width(crop_size)
    cuts = {}
    if offset > 0:
        cuts["start"] = offset
    if offset + crop_size < image_size:
        cuts["end"] = offset + crop_size - width
    return cuts


def _segments(offset: int, image_size: int, crop_size: int) -> list[tuple[tuple[int, int], tuple[int, int] | None]]:
    """A crop's extent along an axis, divided: (first, last) pixel of the crop; (start, size) of the strip or None."""
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
    """Pixels: as wide as the padding at both of its sides reaches."""
    return 2 * depth(crop_size) * EARLY_STRIDE
