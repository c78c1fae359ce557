"""The CPU backends agree with each other and, independently of the exporter, with PyTorch."""

import numpy as np
import onnx
import pytest

from cxr_trt.engine.bundle import Engine
from cxr_trt.export.pictures import check_pictures
from cxr_trt.images import decode
from cxr_trt.preprocess import preprocess

CPU_BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def radiograph(radiographs):
    return preprocess(decode((radiographs / "RG1_UNCR.dcm").read_bytes()).pixels, 512)


@pytest.fixture(scope="module")
def ten_crop_engines(demo_model, build):
    engines = {name: Engine(build(onnx.load(demo_model), name)) for name in CPU_BACKENDS}
    yield engines
    for engine in engines.values():
        engine.close()


def test_cpu_backends_agree(ten_crop_engines, radiograph):
    images = np.stack([radiograph, *check_pictures(512)[:, 0]])
    a, b = (engine.run(images, class_maps=True) for engine in ten_crop_engines.values())
    assert a.probabilities.shape == (3, 14)
    assert a.class_maps is not None
    assert a.class_maps.shape == (3, 14, 16, 16)
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(a.class_maps, b.class_maps, rtol=0, atol=1e-5 * np.abs(a.class_maps).max())


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_batches_and_single_images_agree(center_model, build, radiograph, backend):
    images = np.stack([radiograph, *check_pictures(512)[:, 0]])
    with Engine(build(center_model, backend, max_batch=2)) as engine:
        together = engine.run(images)
        single = [engine.run(image[None]).probabilities[0] for image in images]
    assert together.class_maps is None
    np.testing.assert_allclose(together.probabilities, np.stack(single), rtol=0, atol=1e-6)


def evaluated(network, images, view_set):
    """The evaluation of the paper's section 4.2, with crops cut in NumPy; shares nothing with the exporter."""
    import torch

    offsets = {"center": [(32, 32)], "ten-crop": [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)]}[view_set]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    results = []
    for image in images:
        rgb = (np.repeat(image[:, :, None], 3, axis=2) / 255.0 - mean) / std
        crops = [rgb[y : y + 448, x : x + 448] for y, x in offsets]
        if view_set == "ten-crop":
            crops += [np.fliplr(crop) for crop in crops]
        batch = torch.tensor(np.stack(crops).transpose(0, 3, 1, 2), dtype=torch.float32)
        with torch.inference_mode():
            results.append(torch.sigmoid(network(batch)).mean(0).numpy())
    return np.stack(results)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_center_crop_is_the_papers_evaluation(network, center_model, build, cxr14, backend):
    files = sorted((cxr14 / "images").glob("*.jpg"))[::400]
    images = np.stack([preprocess(decode(file.read_bytes()).pixels, 512) for file in files])
    assert len(images) == 8
    with Engine(build(center_model, backend)) as engine:
        probabilities = engine.run(images).probabilities
    np.testing.assert_allclose(probabilities, evaluated(network, images, "center"), rtol=0, atol=1e-5)


def test_ten_crop_is_the_papers_evaluation(network, ten_crop_engines, cxr14):
    files = sorted((cxr14 / "images").glob("*.jpg"))[::400]
    images = np.stack([preprocess(decode(file.read_bytes()).pixels, 512) for file in files])
    expected = evaluated(network, images, "ten-crop")
    assert np.ptp(expected, axis=0).max() > 0.01  # the images are told apart
    np.testing.assert_allclose(ten_crop_engines["openvino"].run(images).probabilities, expected, rtol=0, atol=1e-5)


def test_ten_crop_of_a_radiograph_is_the_papers_evaluation(network, ten_crop_engines, radiograph):
    expected = evaluated(network, [radiograph], "ten-crop")
    for engine in ten_crop_engines.values():
        np.testing.assert_allclose(engine.run(radiograph[None]).probabilities, expected, rtol=0, atol=1e-5)
