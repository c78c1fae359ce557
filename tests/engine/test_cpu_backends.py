"""The CPU backends agree with each other and, independently of the exporter, with PyTorch."""

import numpy as np
import onnx
import pytest

from cxr_trt.score.engine import Engine
from cxr_trt.export.scoring_graph import GraphInfo
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.graph_building import build_graph
from cxr_trt.images import decode
from cxr_trt.model.settings import SETTINGS
from cxr_trt.images.preprocess import preprocess
from cxr_trt.spec import Specification

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

    five = [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)]
    offsets = five if view_set in ("ten-crop", "five-crop") else [(32, 32)]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    results = []
    for image in images:
        rgb = (np.repeat(image[:, :, None], 3, axis=2) / 255.0 - mean) / std
        crops = [rgb[y : y + 448, x : x + 448] for y, x in offsets]
        if view_set in ("ten-crop", "center-mirror"):
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


@pytest.mark.parametrize("view_set", ["center-mirror", "five-crop"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_other_crops_are_those_of_the_papers_evaluation(network, demo_weights, build, radiograph, backend, view_set):
    spec = Specification(views=view_set)
    metadata = GraphInfo.of(spec, "untrained", "0" * 64).to_metadata()
    model = build_graph(demo_weights, SETTINGS["paper"], spec, metadata, class_maps=True)
    with Engine(build(model, backend)) as engine:
        probabilities = engine.run(radiograph[None]).probabilities
    np.testing.assert_allclose(probabilities, evaluated(network, [radiograph], view_set), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_dense_is_the_network_on_the_whole_image(network, demo_weights, build, radiograph, backend):
    import torch

    spec = Specification(views="dense")
    metadata = GraphInfo.of(spec, "untrained", "0" * 64).to_metadata()
    model = build_graph(demo_weights, SETTINGS["paper"], spec, metadata, class_maps=True)
    with Engine(build(model, backend)) as engine:
        probabilities, class_maps = engine.run(radiograph[None], class_maps=True)
    rgb = (np.stack([radiograph] * 3) / 255 - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None]
    passes = torch.tensor(np.stack([rgb, rgb[:, :, ::-1]]), dtype=torch.float32)
    with torch.inference_mode():
        maps = network.class_maps(passes).numpy()
    parts = [maps[:, :, y : y + 14, x : x + 14] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    scores = np.stack([part.max((2, 3)) + 0.7 * part.min((2, 3)) for part in parts])
    np.testing.assert_allclose(probabilities[0], (1 / (1 + np.exp(-scores))).mean((0, 1)), rtol=0, atol=1e-5)
    merged = (maps[0] + maps[1, :, :, ::-1]) / 2
    np.testing.assert_allclose(class_maps[0], merged, rtol=0, atol=1e-5 * np.abs(merged).max())


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
