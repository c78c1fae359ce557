"""The CPU backends agree with each other and, independently of the exporter, with PyTorch."""

import numpy as np
import pytest

from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.images.load import load_images
from cxr_trt.model.settings import SETTINGS
from cxr_trt.score.engine import Engine
from cxr_trt.spec import Specification
from cxr_trt.views import Size

CPU_BACKENDS = ("onnxruntime", "openvino")
SMALL = {
    "image_size": Size.square(288),
    "crop_size": Size.square(224),
}  # crops that lie where the paper's do, at a quarter of the time


@pytest.fixture(scope="module")
def graph_of_size(demo_weights):
    """Builds the scoring graph of the shipped network for a view set and sizes, by default the paper's."""

    def graph(view_set, **sizes):
        info = GraphInfo.of_this_version(Specification(views=view_set, **sizes), "untrained", "0" * 64)
        return ScoringGraph.from_network(demo_weights, SETTINGS["paper"], info)

    return graph


@pytest.fixture(scope="module")
def load(radiographs):
    """Loads the radiograph in a size: uint8 [1, 1, size, size]."""
    return lambda size: load_images([radiographs / "RG1_UNCR.dcm"], size)


@pytest.fixture(scope="module")
def chest_images(cxr14):
    return load_images(sorted((cxr14 / "images").glob("*.jpg"))[::800], 512)


@pytest.mark.parametrize("view_set", ["ten-crop", "dense"])
def test_cpu_backends_agree(graph_of_size, build, load, view_set):
    images = np.concatenate([load(288), check_pictures(288)[:1]])
    graph, outputs = graph_of_size(view_set, **SMALL), []
    for backend in CPU_BACKENDS:
        with Engine(build(graph, backend)) as engine:
            outputs.append(engine.run(images, class_maps=True))
    a, b = outputs
    assert a.probabilities.shape == (2, 14)
    assert a.class_maps is not None
    assert a.class_maps.shape == (2, 14, 9, 9)
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=1e-5)
    np.testing.assert_allclose(a.class_maps, b.class_maps, rtol=0, atol=1e-5 * np.abs(a.class_maps).max())


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_batches_and_single_images_agree(graph_of_size, build, load, backend):
    images = np.concatenate([load(288), check_pictures(288)])
    with Engine(build(graph_of_size("center", **SMALL), backend, max_batch=2)) as engine:
        together = engine.run(images)
        single = [engine.run(image).probabilities[0] for image in images]
    assert together.class_maps is None
    np.testing.assert_allclose(together.probabilities, np.stack(single), rtol=0, atol=1e-6)


def evaluated(network, images, view_set, crop_size=448):
    """The evaluation of the paper's section 4.2, with crops cut in NumPy; shares nothing with the exporter."""
    import torch

    five = [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32)]
    offsets = five if view_set in ("ten-crop", "five-crop") else [(32, 32)]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    results = []
    for image in images[:, 0]:
        rgb = (np.repeat(image[:, :, None], 3, axis=2) / 255.0 - mean) / std
        crops = [rgb[y : y + crop_size, x : x + crop_size] for y, x in offsets]
        if view_set in ("ten-crop", "center-mirror"):
            crops += [np.fliplr(crop) for crop in crops]
        batch = torch.tensor(np.stack(crops).transpose(0, 3, 1, 2), dtype=torch.float32)
        with torch.inference_mode():
            results.append(torch.sigmoid(network(batch)).mean(0).numpy())
    return np.stack(results)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_center_crop_is_the_papers_evaluation(network, center_graph, build, chest_images, backend):
    with Engine(build(center_graph, backend)) as engine:
        probabilities = engine.run(chest_images).probabilities
    np.testing.assert_allclose(probabilities, evaluated(network, chest_images, "center"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("view_set", ["center-mirror", "five-crop"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_other_crops_are_those_of_the_papers_evaluation(network, graph_of_size, build, load, backend, view_set):
    image = load(288)
    with Engine(build(graph_of_size(view_set, **SMALL), backend)) as engine:
        probabilities = engine.run(image).probabilities
    np.testing.assert_allclose(probabilities, evaluated(network, image, view_set, 224), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_dense_is_the_network_on_the_whole_image(network, graph_of_size, build, load, backend):
    import torch

    graph, image = graph_of_size("dense", **SMALL), load(288)
    with Engine(build(graph, backend)) as engine:
        probabilities, class_maps = engine.run(image, class_maps=True)
    mean, std = (np.array(values)[:, None, None] for values in (graph.spec.mean, graph.spec.std))
    rgb = (np.concatenate([image[0]] * 3) / 255 - mean) / std
    passes = torch.tensor(np.stack([rgb, rgb[:, :, ::-1]]), dtype=torch.float32)
    with torch.inference_mode():
        maps = network.class_maps(passes).numpy()
    parts = [maps[:, :, y : y + 7, x : x + 7] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    scores = np.stack([part.max((2, 3)) + 0.7 * part.min((2, 3)) for part in parts])
    np.testing.assert_allclose(probabilities[0], (1 / (1 + np.exp(-scores))).mean((0, 1)), rtol=0, atol=1e-5)
    merged = (maps[0] + maps[1, :, :, ::-1]) / 2
    np.testing.assert_allclose(class_maps[0], merged, rtol=0, atol=1e-5 * np.abs(merged).max())


def test_ten_crop_is_the_papers_evaluation(network, paper_model, build, load):
    image = load(512)
    expected = evaluated(network, image, "ten-crop")
    assert np.abs(expected - evaluated(network, image, "center")).max() > 1e-3  # the other crops matter
    with Engine(build(ScoringGraph.load(paper_model), "openvino")) as engine:
        np.testing.assert_allclose(engine.run(image).probabilities, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("images", [1, 3])
def test_what_was_prepared_is_not_compiled_again(graph_of_size, build, load, images):
    bundle = build(graph_of_size("center", **SMALL), "openvino", max_batch=2)
    with Engine(bundle) as engine:
        engine.prepare(images)
        (compiled,) = engine._runner._compiled.values()
        scores = engine.run(np.concatenate([load(288)] * min(images, engine.max_batch)))
        assert list(engine._runner._compiled.values()) == [compiled]
    with Engine(bundle) as engine:
        np.testing.assert_array_equal(scores.probabilities[:1], engine.run(load(288)).probabilities)
