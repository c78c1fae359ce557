"""Class maps of networks `edge` in training, of crops of X-rays, and what they are held against."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.study import Result
from cxr_trt.evaluate.localization import hits, localize, to_json
from cxr_trt.findings import FINDINGS
from cxr_trt.geometry import Rectangle, scaled, strongest_region
from cxr_trt.images import decode
from cxr_trt.images.load import load_images
from cxr_trt.model.edge import EdgeNetwork
from cxr_trt.systems.edge import EDGE
from cxr_trt.tables.boxes import read_boxes
from train.data import DataSet
from train.recipe import read_recipe

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


def boxes_of_test_images(data: Path, limit: int | None) -> dict[str, list[tuple[int, Rectangle]]]:
    """The boxes of each test X-ray that has some, or of the first of them: finding and place."""
    with (data / "labels.csv").open(newline="", encoding="utf-8") as stream:
        splits = {row["image"]: row["split"] for row in csv.DictReader(stream)}
    found: dict[str, list[tuple[int, Rectangle]]] = {}
    for box in read_boxes(data / "boxes.csv"):
        if splits[box.image] != "test":
            raise click.ClickException(f"a box is on {box.image}, which is no test image")
        if box.image in found or limit is None or len(found) < limit:
            found.setdefault(box.image, []).append((FINDINGS.index(box.finding), box.rectangle))
    return found


def localized(
    network: EdgeNetwork | None,
    folder: Path,
    boxes: dict[str, list[tuple[int, Rectangle]]],
    images: DataSet,
    resamples: int,
) -> Result:
    """How well maps of the centre crop agree with the boxes; without a network, those of the image centre."""
    patients = dict(zip(images.names, images.patients, strict=True))
    recipe = read_recipe("edge")
    maps = _maps_on_files(network, [folder / name for name in boxes], recipe.image_size, recipe.crop_size)
    found = [
        (hits(strongest_region(class_maps[finding], rectangle), box), finding, patients[name])
        for (name, own), (class_maps, rectangle) in zip(boxes.items(), maps, strict=True)
        for finding, box in own
    ]
    agreed, findings, whose = zip(*found, strict=True)
    return to_json(localize(FINDINGS, np.array(agreed), np.array(findings), whose, resamples=resamples))


def _maps_on_files(
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
            yield centre_maps(), Rectangle(0, 0, height, width)
        else:
            maps = maps_of_crop(network, read_picture(path, image_size), start, side).numpy()
            crop = Rectangle(start, start, side, side)
            yield maps, scaled(crop, height / image_size, width / image_size)


def centre_maps() -> npt.NDArray[np.float32]:
    """Maps [14, h, w] that fall with the distance from the centre, whatever the X-ray shows."""
    y, x = np.mgrid[:CENTRE_CELLS, :CENTRE_CELLS] - (CENTRE_CELLS - 1) / 2
    return np.broadcast_to(-np.hypot(y, x).astype(np.float32), (len(FINDINGS), CENTRE_CELLS, CENTRE_CELLS))
