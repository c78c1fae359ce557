"""The second pass of AG-CNN against its equations, and against SciPy's labels of connected regions."""

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")

from cxr_trt.engine.box_check import overlaps  # noqa: E402
from cxr_trt.model.second_pass import BoxCrops, HottestBoxes  # noqa: E402

RNG = np.random.default_rng(0)


def hottest_box(activations, heat):
    """Eqs. 3 and 4 for activations [C, h, w] in float64: top, left, bottom, right of the largest region."""
    highest = np.abs(activations.astype(np.float64)).max(0)
    lowest = highest.min() if heat == "min-max" else 0.0
    mask = highest - lowest > 0.7 * (highest.max() - lowest)
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    if count == 0:
        return 0, 0, *mask.shape
    largest = regions == 1 + np.bincount(regions.ravel())[1:].argmax()
    y, x = np.nonzero(largest)
    return y.min(), x.min(), y.max() + 1, x.max() + 1


def resized(image, box):
    """The pixels of a box (top, left, bottom, right) of an image [H, W], resized bilinearly to its size, float64."""

    def line(start, end, side):
        source = np.clip(start + (end - start) * (np.arange(side) + 0.5) / side - 0.5, start, end - 1)
        before = np.floor(source).astype(int)
        return before, np.minimum(before + 1, end - 1), source - before

    top, left, bottom, right = map(int, box)
    (y0, y1, down), (x0, x1, across) = line(top, bottom, image.shape[0]), line(left, right, image.shape[1])
    rows = image[y0] * (1 - down)[:, None] + image[y1] * down[:, None]
    return rows[:, x0] * (1 - across) + rows[:, x1] * across


def activations(height, width):
    """Noise, smooth noise, negative noise, a flat map, a map of zeros, a snake, two equal regions, one cell."""
    rough = RNG.normal(0, 1, (24, 8, height, width))
    smooth = 3 * ndimage.gaussian_filter(rough, (0, 0, 1, 1))
    special = np.zeros((5, 8, height, width))
    special[0] = 2.5
    special[2, 3, ::2] = 9
    special[2, 3, 1::4, -1] = special[2, 3, 3::4, 0] = 9
    special[3, 0, 0, :2] = special[3, 0, -1, -2:] = -4
    special[4, 7, height // 2, width // 2] = 1
    return np.concatenate([rough, smooth, -np.abs(rough), special]).astype(np.float32)


@pytest.mark.parametrize("heat", ["min-max", "max"])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (14, 14), (2, 3), (5, 1)])
def test_boxes_are_those_of_the_largest_region(height, width, heat):
    maps = activations(height, width)
    found = HottestBoxes(heat)(torch.from_numpy(maps))
    expected = np.array([hottest_box(one, heat) for one in maps])
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected, axis=0)) > 1


def test_a_flat_map_gives_the_whole_crop():
    for heat in ("min-max", "max"):
        for value in (0.0, 2.5, -1e-20):
            assert HottestBoxes(heat)(torch.full((1, 4, 3, 5), value)).tolist() == [[0, 0, 3, 5]]


def test_cells_at_the_threshold_are_not_in_the_mask():
    """Eq. 4 wants more than tau."""
    maps = torch.tensor([0.0, 0.75, 1.0, 0.5]).reshape(1, 1, 2, 2)
    boxes = HottestBoxes(threshold=0.75)(maps)
    assert boxes.tolist() == [[1, 0, 2, 1]]


@pytest.mark.parametrize("cells", [(7, 7), (4, 2)])
def test_crops_are_cut_and_resized_bilinearly(cells):
    crops = RNG.uniform(-2, 2, (12, 3, 56, 28)).astype(np.float32)
    first, last = (RNG.integers(0, cells, (12, 2)) for _ in range(2))
    boxes = np.concatenate([np.minimum(first, last), np.maximum(first, last) + 1], 1).astype(np.float32)
    boxes[0] = 0, 0, *cells
    found = BoxCrops()(torch.from_numpy(crops), torch.from_numpy(boxes), cells).numpy()
    scale = 56 / cells[0], 28 / cells[1]
    for crop, box, result in zip(crops, boxes, found, strict=True):
        for channel, resized_channel in zip(crop.astype(np.float64), result, strict=True):
            np.testing.assert_allclose(resized_channel, resized(channel, box * (*scale, *scale)), atol=2e-5)
    np.testing.assert_allclose(found[0], crops[0], atol=2e-5)


def test_boxes_of_cells_agree_with_boxes_of_pixels_on_average():
    """The alternative to cells: a heat map enlarged to 224 pixels, and its largest region there."""
    maps = 3 * ndimage.gaussian_filter(RNG.normal(0, 1, (40, 8, 7, 7)), (0, 0, 1, 1)).astype(np.float32)
    by_cells = 32 * HottestBoxes()(torch.from_numpy(maps)).numpy()
    heat = torch.from_numpy(np.abs(maps).max(1, keepdims=True))
    enlarged = torch.nn.functional.interpolate(heat, size=(224, 224), mode="bilinear", align_corners=False).numpy()
    by_pixels = np.array([hottest_box(one, "min-max") for one in enlarged])
    agreement = overlaps(by_cells, by_pixels)
    assert 0.3 < agreement.mean() < 1
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (by_cells, by_pixels)]
    assert np.median(np.abs(middles[0] - middles[1])) < 32
