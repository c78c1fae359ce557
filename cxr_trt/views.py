"""View sets: which parts of the resized X-ray the network sees, and which parts of its class maps it pools.

See the paper, sec. 4.2.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

ViewSet = Literal["ten-crop", "five-crop", "center-mirror", "center", "dense"]
VIEW_SETS: tuple[ViewSet, ...] = get_args(ViewSet)
NETWORK_STRIDE = 32  # pixels of a view per cell of its class maps


@dataclass(frozen=True)
class View:
    """A square that the network sees at once.

    y, x: its upper left corner in pixels of the resized image. mirrored: whether it is flipped left to right after it
    was cut out.
    """

    y: int
    x: int
    mirrored: bool


class Window(NamedTuple):
    """A part of a view's class maps that is pooled on its own: upper left cell, height and width, all in cells."""

    y: int
    x: int
    height: int
    width: int


def views(view_set: ViewSet, image_size: int, crop_size: int) -> tuple[View, ...]:
    """The views of a set, in the order in which the scoring graph stacks them.

    Ten-crop is the four corners and the centre, then the same five mirrored; five-crop omits the mirrored ones.
    With 512 and 448 pixels the offsets are 0 and 64 for the corners and 32 for the centre, all multiples of the
    network's stride of 32. Dense is the whole image and its mirror image.
    """
    middle = (image_size - crop_size) // 2
    offsets = {
        "ten-crop": _corners_and_center(image_size, crop_size),
        "five-crop": _corners_and_center(image_size, crop_size),
        "center-mirror": [(middle, middle)],
        "center": [(middle, middle)],
        "dense": [(0, 0)],
    }[view_set]
    mirrored = (False,) if view_set in ("center", "five-crop") else (False, True)
    return tuple(View(y, x, mirror) for mirror in mirrored for y, x in offsets)


def windows(view_set: ViewSet, image_size: int, crop_size: int) -> tuple[Window, ...]:
    """What is pooled of each view's class maps: the whole maps, or for dense the five windows that match the crops.

    For dense, image and crop size must be equal or differ by a multiple of 64 pixels, so that the crops lie on cells.
    """
    crop = crop_size // NETWORK_STRIDE
    if view_set != "dense":
        return (Window(0, 0, crop, crop),)
    return tuple(
        Window(y // NETWORK_STRIDE, x // NETWORK_STRIDE, crop, crop)
        for y, x in _corners_and_center(image_size, crop_size)
    )


def _corners_and_center(image_size: int, crop_size: int) -> list[tuple[int, int]]:
    far, middle = image_size - crop_size, (image_size - crop_size) // 2
    return [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
