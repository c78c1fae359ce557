"""View sets: which crops of the resized X-ray the network sees (paper, sec. 4.2)."""

from dataclasses import dataclass
from typing import Literal, get_args

ViewSet = Literal["ten-crop", "center"]
VIEW_SETS: tuple[ViewSet, ...] = get_args(ViewSet)


@dataclass(frozen=True)
class View:
    """A square crop; its upper left corner in pixels of the resized image; mirrored left to right after cutting."""

    y: int
    x: int
    mirrored: bool


def views(view_set: ViewSet, image_size: int, crop_size: int) -> tuple[View, ...]:
    """The views of a set, in the order in which the scoring graph stacks them.

    Ten-crop is the four corners and the centre, then the same five mirrored. With 512 and 448 pixels the offsets
    are 0 and 64 for the corners and 32 for the centre, all multiples of the network's stride of 32.
    """
    far, middle = image_size - crop_size, (image_size - crop_size) // 2
    if view_set == "center":
        return (View(middle, middle, mirrored=False),)
    offsets = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return tuple(View(y, x, mirrored) for mirrored in (False, True) for y, x in offsets)
