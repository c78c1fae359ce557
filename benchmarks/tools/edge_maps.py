"""Class maps of networks `edge` in training, of crops of X-rays, and what they are held against."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, scaled
from cxr_trt.images import decode
from cxr_trt.images.load import load_images
from cxr_trt.model.edge import EdgeNetwork
from cxr_trt.systems.edge import EDGE

CENTRE_CELLS = 16  # of the map that falls with the distance from the centre


def read_picture(path: Path, side: int) -> npt.NDArray[np.uint8]:
    """An X-ray as the network sees it, uint8 [side, side]."""
    picture: npt.NDArray[np.uint8] = load_images([path], side)[0, 0]
    return picture


@torch.no_grad()
def maps_of_crop(network: EdgeNetwork, picture: npt.NDArray[np.uint8], start: int, side: int) -> Tensor:
    """Class maps [14, h, w] of the crop of `side` pixels from (start, start) on."""
    crop = torch.from_numpy(picture[None, None, start : start + side, start : start + side]).float() / 255
    return network.class_maps(((crop - EDGE.mean[0]) / EDGE.std[0]).expand(-1, 3, -1, -1))[0]


def maps_on_files(
    network: EdgeNetwork | None, paths: Iterable[Path], image_size: int, side: int
) -> Iterator[tuple[npt.NDArray[np.float32], Rectangle]]:
    """The maps [14, h, w] of the centre crop of each file, and what they cover in pixels of the file.

    Without a network they are the same for every X-ray: they fall with the distance from the centre. `image_size` and
    `side` are those of the resized image and of its crop, in pixels.
    """
    start = (image_size - side) // 2
    for path in paths:
        height, width = decode(path.read_bytes()).pixels.shape
        if network is None:
            yield _centre_maps(), Rectangle(0, 0, height, width)
        else:
            maps = maps_of_crop(network, read_picture(path, image_size), start, side).numpy()
            crop = Rectangle(start, start, side, side)
            yield maps, scaled(crop, height / image_size, width / image_size)


def _centre_maps() -> npt.NDArray[np.float32]:
    y, x = np.mgrid[:CENTRE_CELLS, :CENTRE_CELLS] - (CENTRE_CELLS - 1) / 2
    return np.broadcast_to(-np.hypot(y, x).astype(np.float32), (len(FINDINGS), CENTRE_CELLS, CENTRE_CELLS))
