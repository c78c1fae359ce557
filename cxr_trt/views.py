"""View sets: which parts of the resized X-ray the network sees, and which parts of its class maps it pools.

See the paper, sec. 4.2.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

ViewSet = Literal["ten-crop", "five-crop", "center-mirror", "center", "dense", "whole"]
VIEW_SETS: tuple[ViewSet, ...] = get_args(ViewSet)
CROP_VIEW_SETS = VIEW_SETS[:-1]  # those for a network whose crops are smaller than the image
NETWORK_STRIDE = 32  # pixels of a view per cell of the class maps of the paper's network


class Size(NamedTuple):
    """The size of an image, a crop or a map."""

    height: int
    width: int

    @classmethod
    def square(cls, side: int) -> "Size":
        return cls(side, side)

    @classmethod
    def of(cls, size: "Size | int") -> "Size":
        """A size as it is, or a number as the side of a square."""
        return size if isinstance(size, Size) else cls(size, size)

    def __str__(self) -> str:
        return str(self.height) if self.height == self.width else f"{self.height} x {self.width}"


@dataclass(frozen=True)
class View:
    """A rectangle that the network sees at once.

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


def views(view_set: ViewSet, image_size: Size, crop_size: Size) -> tuple[View, ...]:
    """The views of a set, in the order in which the scoring graph stacks them.

    Ten-crop is the four corners and the centre, then the same five mirrored; five-crop omits the mirrored ones.
    With 512 and 448 pixels the offsets are 0 and 64 for the corners and 32 for the centre, all multiples of the
    network's stride of 32. Dense is the whole image and its mirror image, and whole is the whole image alone.
    """
    far_y, far_x = image_size.height - crop_size.height, image_size.width - crop_size.width
    offsets = {
        "ten-crop": _corners_and_center(image_size, crop_size),
        "five-crop": _corners_and_center(image_size, crop_size),
        "center-mirror": [(far_y // 2, far_x // 2)],
        "center": [(far_y // 2, far_x // 2)],
        "dense": [(0, 0)],
        "whole": [(0, 0)],
    }[view_set]
    mirrored = (False,) if view_set in ("center", "five-crop", "whole") else (False, True)
    return tuple(View(y, x, mirror) for mirror in mirrored for y, x in offsets)


def windows(view_set: ViewSet, image_size: Size, crop_size: Size) -> tuple[Window, ...]:
    """What is pooled of each view's class maps: the whole maps, or for dense the five windows that match the crops.

    For dense, image and crop size must be equal or differ by a multiple of 64 pixels, so that the crops lie on cells.
    """
    rows, columns = crop_size.height // NETWORK_STRIDE, crop_size.width // NETWORK_STRIDE
    if view_set != "dense":
        return (Window(0, 0, rows, columns),)
    return tuple(
        Window(y // NETWORK_STRIDE, x // NETWORK_STRIDE, rows, columns)
        for y, x in _corners_and_center(image_size, crop_size)
    )


def _corners_and_center(image_size: Size, crop_size: Size) -> list[tuple[int, int]]:
    bottom, right = image_size.height - crop_size.height, image_size.width - crop_size.width
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
