import cv2
import numpy as np
import pytest

from cxr_trt.geometry import map_rectangle, upsample
from cxr_trt.images.preprocess import preprocess
from cxr_trt.spec import Specification


@pytest.mark.parametrize("views", ["ten-crop", "center"])
@pytest.mark.parametrize("fit", ["stretch", "center-crop", "pad"])
@pytest.mark.parametrize("shape", [(1000, 800), (501, 900), (1024, 1024)])
@pytest.mark.parametrize("place", [(0.3, 0.35), (0.5, 0.5), (0.62, 0.7)])
def test_a_spot_comes_back_to_where_it_was(views, fit, shape, place):
    """Through the real preprocessing to the cells that see it, and from those back to the picture."""
    spec = Specification(views=views, fit=fit)
    side, (y, x) = min(shape), (round(at * length) for at, length in zip(place, shape, strict=True))
    if fit == "center-crop":  # within the square
        y, x = (round(length / 2 + (at - 0.5) * side) for at, length in zip(place, shape, strict=True))
    picture = np.zeros(shape, np.float32)
    cv2.circle(picture, (x, y), side // 40, 255, -1)
    top, left, height, width = spec.class_map_region
    seen = preprocess(picture, spec.image_size, fit)[top : top + height, left : left + width]
    class_map = cv2.resize(seen.astype(np.float32), spec.class_map_cells[::-1], interpolation=cv2.INTER_AREA)
    smooth, (rows, columns) = upsample(class_map, map_rectangle(spec, *shape), *shape)
    whole = np.full(shape, class_map.min())
    whole[rows, columns] = smooth
    weights = whole - class_map.min()
    for axis, expected, length in ((1, y, shape[0]), (0, x, shape[1])):
        centre = np.average(np.arange(length), weights=weights.sum(axis))
        scale = {"stretch": length, "center-crop": side, "pad": max(shape)}[fit]
        assert abs(centre - expected) < 0.5 * (height / spec.class_map_cells.height) * scale / spec.image_size.height


@pytest.mark.parametrize("shape", [(1, 1000), (3000, 1), (1, 1), (7, 5)])
def test_pictures_of_any_shape_have_a_map(shape):
    for fit in ("stretch", "center-crop", "pad"):
        rectangle = map_rectangle(Specification(views="center", fit=fit), *shape)
        smooth, (rows, columns) = upsample(np.eye(14, dtype=np.float32), rectangle, *shape)
        assert smooth.shape == (rows.stop - rows.start, columns.stop - columns.start)
        assert 0 <= rows.start < rows.stop <= shape[0]
        assert 0 <= columns.start < columns.stop <= shape[1]


def test_upsampling_stays_within_the_range_of_the_map():
    class_map = np.zeros((16, 16), np.float32)
    class_map[4, 4] = 1  # around which cubic interpolation would go below 0
    smooth, _ = upsample(class_map, map_rectangle(Specification(), 512, 512), 512, 512)
    assert (smooth.min(), smooth.max() <= 1) == (0, True)
