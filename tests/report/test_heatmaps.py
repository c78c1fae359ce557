import numpy as np
import pytest

from cxr_trt.report.heatmaps import overlay
from cxr_trt.spec import Specification


@pytest.mark.parametrize(("view_set", "cells", "offset"), [("ten-crop", 16, 0), ("center", 14, 32)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 10), (13, 13)])
def test_the_hottest_cell_is_brightest_where_it_lies(view_set, cells, offset, cell):
    class_map = np.zeros((cells, cells), np.float32)
    class_map[cell] = 5
    picture = overlay(np.zeros((512, 512), np.uint8), class_map, Specification(views=view_set))
    assert picture.shape == (512, 512, 3)
    brightness = picture.sum(2, dtype=int)
    y, x = (coordinates.mean() for coordinates in np.nonzero(brightness == brightness.max()))
    assert abs(y - (offset + 32 * cell[0] + 15.5)) <= 16
    assert abs(x - (offset + 32 * cell[1] + 15.5)) <= 16
    assert picture[300, 200].max() < 10  # far from every hot cell the X-ray shows through


def test_a_constant_map_leaves_the_xray_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    picture = overlay(image, np.full((16, 16), 3.0, np.float32), Specification())
    np.testing.assert_array_equal(picture, np.repeat(image[:, :, None], 3, axis=2))
