"""Proof that a view's early map is put together from the right cells, cell by cell and without any weights."""

import numpy as np
import pytest

from cxr_trt.export import crop_sharing
from cxr_trt.export.crop_sharing import EARLY_LAYERS, crop_parts, depth, pieces_of_views, worth_sharing
from cxr_trt.model.settings import SETTINGS
from cxr_trt.views import Size, views

SIZES = [
    *((Size.square(image), Size.square(crop)) for image, crop in [(512, 448), (256, 224), (288, 224), (144, 128)]),
    (Size(512, 288), Size(448, 224)),
]


def computations(start, size):
    """What each cell of the early map of a line of pixels is computed from, as a hash of all that goes into it.

    Kernels are square and rows and columns do not mix, so a cell of a map is computed from the same pixels and the same
    padding as another exactly if that holds for its row and for its column.
    """
    line = [hash(("pixel", position)) for position in range(start, start + size)]
    for kernel, stride, padding in EARLY_LAYERS:
        padded = [hash("padding")] * padding + line + [hash("padding")] * padding
        line = [hash((kernel, *padded[i : i + kernel])) for i in range(0, len(padded) - kernel + 1, stride)]
    return line


def proven(image_size, crop_size):
    """Whether every cell of every view is computed as in the crop itself."""
    view_list = views("ten-crop", image_size, crop_size)
    for crop, lines in zip(
        crop_parts(view_list, image_size, crop_size), pieces_of_views(view_list, image_size, crop_size), strict=True
    ):
        rows, columns = computations(crop.y, crop_size.height), computations(crop.x, crop_size.width)
        top = 0
        for line in lines:
            left = 0
            for piece in line:
                source = piece.source
                own_rows = computations(source.y, source.height)[piece.top : piece.bottom]
                own_columns = computations(source.x, source.width)[piece.left : piece.right]
                same = own_rows == rows[top : top + len(own_rows)] and source.mirrored == crop.mirrored
                if not same or own_columns != columns[left : left + len(own_columns)]:
                    return False
                left += len(own_columns)
            if left != len(columns):
                return False
            top += len(own_rows)
        if top != len(rows):
            return False
    return True


@pytest.mark.parametrize(("image_size", "crop_size"), SIZES)
def test_every_cell_is_computed_as_in_its_crop(image_size, crop_size):
    assert proven(image_size, crop_size)


@pytest.mark.parametrize("change", ["a cell less", "a layer less"])
def test_the_proof_fails_for_cells_that_padding_reaches(monkeypatch, change):
    true_depth = depth(448)
    if change == "a cell less":
        monkeypatch.setattr(crop_sharing, "depth", lambda size: true_depth - 1)
    else:
        monkeypatch.setattr(crop_sharing, "EARLY_LAYERS", EARLY_LAYERS[:2] + EARLY_LAYERS[5:])
        assert crop_sharing.depth(448) < true_depth
    assert not proven(Size.square(512), Size.square(448))


def test_the_depth_is_the_least_that_is_enough():
    for size in (128, 224, 448, 512):
        alone, longer = computations(1000, size), computations(1000 - 512, 512 + size + 512)[64:-64]
        same = [one == other for one, other in zip(alone, longer, strict=True)]
        assert same.index(True) == depth(size) == 4
        assert same[::-1].index(True) <= 4


def test_the_layers_are_the_networks():
    nn = pytest.importorskip("torch.nn", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    features = Network(SETTINGS["paper"]).features
    early = nn.Sequential(features.conv0, features.pool0, features.denseblock1, features.transition1)
    found = []
    for module in early.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernel, stride, padding = (
                np.broadcast_to(getattr(module, name), 2)[0] for name in ("kernel_size", "stride", "padding")
            )
            found.append((int(kernel), int(stride), int(padding)))
    assert tuple(layer for layer in found if layer != (1, 1, 0)) == EARLY_LAYERS


def test_sharing_runs_half_of_the_pixels_for_ten_crops_and_none_less_for_one():
    def pixels(view_set, image_size, crop_size):
        lines = [
            line
            for lines in pieces_of_views(views(view_set, image_size, crop_size), image_size, crop_size)
            for line in lines
        ]
        sources = {piece.source for line in lines for piece in line}
        return sum(source.height * source.width for source in sources)

    def shares(view_set, image_size, crop_size):
        return worth_sharing(views(view_set, image_size, crop_size), image_size, crop_size)

    paper = Size.square(512), Size.square(448)
    assert pixels("ten-crop", *paper) / (10 * 448**2) == pytest.approx(0.522, abs=0.001)
    assert shares("ten-crop", *paper)
    assert not shares("center", *paper)
    assert not shares("ten-crop", Size.square(64), Size.square(32))  # crops narrower than a strip


def test_a_mirrored_view_is_cut_from_the_mirror_image():
    image = np.arange(16 * 20).reshape(16, 20)
    sizes = Size(16, 20), Size(10, 12)
    for view, part in zip(views("ten-crop", *sizes), crop_parts(views("ten-crop", *sizes), *sizes), strict=True):
        expected = image[view.y : view.y + 10, view.x : view.x + 12]
        base = image[:, ::-1] if part.mirrored else image
        found = base[part.y : part.y + part.height, part.x : part.x + part.width]
        np.testing.assert_array_equal(found, expected[:, ::-1] if view.mirrored else expected)
