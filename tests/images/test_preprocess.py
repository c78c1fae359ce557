import cv2
import numpy as np
import pytest

from cxr_trt.errors import ImageError
from cxr_trt.images import preprocess as module
from cxr_trt.images.preprocess import preprocess


def area_weights(length: int, size: int) -> np.ndarray:
    """[size, length]: the share of each source pixel in each target pixel."""
    starts = np.arange(size)[:, None] * length / size
    ends = (np.arange(size)[:, None] + 1) * length / size
    pixels = np.arange(length)[None, :]
    overlap: np.ndarray = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    return overlap.clip(0) * size / length


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (2048, 2048), (512, 512), (2048, 1024)])
def test_integer_factors_are_block_means_rounded_half_to_even(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.float32)
    means = pixels.astype(np.float64).reshape(512, height // 512, 512, width // 512).mean(axis=(1, 3))
    np.testing.assert_array_equal(preprocess(pixels, 512), np.rint(means).astype(np.uint8))


def test_exact_halves_go_to_the_even_neighbour() -> None:
    pixels = np.array([[0, 1], [1, 0]], np.float32).repeat(2, 1)  # block means 0.5
    assert preprocess(np.tile(pixels, (4, 2)), 4).max() == 0
    assert preprocess(np.tile(pixels + 1, (4, 2)), 4).min() == 2


@pytest.mark.parametrize(("height", "width"), [(1955, 1841), (600, 517), (1025, 3000)])
def test_other_sizes_are_area_weighted_means_that_do_not_keep_the_aspect(height: int, width: int) -> None:
    pixels = (np.random.default_rng(0).random((height, width)) * 255).astype(np.float32)
    means = area_weights(height, 512) @ pixels.astype(np.float64) @ area_weights(width, 512).T
    result = preprocess(pixels, 512)
    assert result.shape == (512, 512)
    assert result.dtype == np.uint8
    assert np.abs(result - means).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("grey", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (512, 512), (1955, 1841)])
def test_a_constant_stays_constant(grey: int, shape: tuple[int, int]) -> None:
    assert (preprocess(np.full(shape, grey, np.float32), 512) == grey).all()


@pytest.mark.parametrize("size", [512, 256])
@pytest.mark.parametrize("shape", [(3000, 2500), (2500, 2048), (2048, 2500), (2140, 1841), (2832, 2348), (4280, 3520)])
def test_resizing_in_bands_changes_no_pixel(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], size: int) -> None:
    pixels = (np.random.default_rng(0).random(shape) * 255).astype(np.float32)
    calls = []
    monkeypatch.setattr(module.cv2, "merge", lambda bands, merge=cv2.merge: calls.append(1) or merge(bands))
    resized = module._resized(pixels, module.Size.square(size))
    assert calls
    np.testing.assert_array_equal(resized, cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fit", ["stretch", "pad", "center-crop"])
@pytest.mark.parametrize("shape", [(4, 5), (64, 64), (128, 128), (1000, 751), (3000, 2500)])
def test_no_value_that_is_not_finite_reaches_the_network(value: float, fit: module.Fit, shape: tuple[int, int]) -> None:
    """Enlarged, as it is, averaged in blocks, and averaged with and without bands."""
    pixels = np.zeros(shape, np.float32)
    preprocess(pixels, 64, fit)
    pixels[shape[0] // 2, shape[1] // 2] = value
    with pytest.raises(ImageError, match="no grey"):
        preprocess(pixels, 64, fit)
