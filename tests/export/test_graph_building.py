"""The scoring graph of every setting and view set against PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from random_networks import random_network

from cxr_trt.errors import GraphError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.export.verify import verify
from cxr_trt.model.network import Network
from cxr_trt.model.scorer import Scorer
from cxr_trt.model.settings import SETTINGS, ModelSettings
from cxr_trt.spec import Specification
from cxr_trt.views import CROP_VIEW_SETS, Size

SMALL = {
    "image_size": Size.square(288),
    "crop_size": Size.square(224),
}  # crops that lie where the paper's do, at a quarter of the time
PAPER = {"image_size": Size.square(512), "crop_size": Size.square(448)}


def export(network, view_set, sizes=SMALL, class_maps=True):
    settings = network.settings
    spec = Specification(views=view_set, pooling=settings.pooling, **sizes)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    info = GraphInfo.of_this_version(spec, "untrained", "0" * 64)
    return ScoringGraph.from_network(weights, settings, info, class_maps)


CASES = {**SETTINGS, "k of 5 and 20": ModelSettings(k_max=5, k_min=20, alpha=0.3)}
PAIRS = [(name, view_set) for name in CASES for view_set in ("center", "dense")] + [
    ("paper", v) for v in CROP_VIEW_SETS[:3]
]


@pytest.fixture(scope="module")
def networks():
    return {name: random_network(settings) for name, settings in CASES.items()}


def largest_difference(graph, network):
    return verify(graph.model, Scorer(network, graph.spec), check_pictures(graph.spec.image_size)[:1])


@pytest.mark.parametrize(("name", "view_set"), PAIRS)
def test_graph_agrees_with_pytorch(networks, name, view_set, tmp_path):
    graph = export(networks[name], view_set)
    onnx.checker.check_model(graph.model, full_check=True)
    assert largest_difference(graph, networks[name]) <= 1e-5
    graph.save(tmp_path / "model.onnx")
    assert ScoringGraph.load(tmp_path / "model.onnx").info == graph.info


@pytest.fixture(scope="module")
def chexnet(networks):
    return networks["chexnet"]


def run(graph, images):
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def test_a_batch_gives_what_its_images_give_one_by_one(chexnet):
    graph = export(chexnet, "center")
    pictures = check_pictures(288)
    together = run(graph, pictures)
    for i in range(len(pictures)):
        for whole, single in zip(together, run(graph, pictures[i : i + 1]), strict=True):
            np.testing.assert_allclose(whole[i], single[0], atol=1e-6)
    assert np.abs(together[0][0] - together[0][1]).max() > 0.01  # the pictures are told apart


def test_class_maps_are_optional(chexnet):
    model = export(chexnet, "center", class_maps=False).model
    assert [output.name for output in model.graph.output] == ["probabilities"]
    assert not any(name.startswith("maps.") for node in model.graph.node for name in node.output)


def test_mirroring_the_image_mirrors_ten_crop_class_maps(chexnet):
    graph = export(chexnet, "ten-crop")
    picture = check_pictures(288)[1:]
    plain, mirrored = run(graph, picture), run(graph, np.ascontiguousarray(picture[..., ::-1]))
    np.testing.assert_allclose(plain[0], mirrored[0], atol=1e-5)
    np.testing.assert_allclose(plain[1], mirrored[1][..., ::-1], atol=1e-4)


@pytest.mark.parametrize("view_set", ["center", "dense"])
def test_a_wrong_weight_is_noticed(chexnet, view_set):
    graph = export(chexnet, view_set)
    name = "features.denseblock4.denselayer16.conv2.weight"
    weight = next(tensor for tensor in graph.model.graph.initializer if tensor.name == name)
    weight.raw_data = np.roll(np.frombuffer(weight.raw_data, np.float32), 1).tobytes()
    with pytest.raises(GraphError, match="differ from PyTorch's"):
        largest_difference(graph, chexnet)


def test_nan_is_noticed():
    network = Network(SETTINGS["chexnet"])
    network.transfer.conv.bias.data[3] = torch.nan
    with pytest.raises(GraphError, match="check that all weights are finite"):
        largest_difference(export(network, "center"), network)


def test_dense_views_are_the_network_on_the_whole_image_pooled_where_the_crops_lie(chexnet):
    """Straight from the definition: no view, window or cell of the project's own."""
    picture = check_pictures(512)[:1]
    graph = export(chexnet, "dense", PAPER)
    probabilities, class_maps = run(graph, picture)
    mean, std = (torch.tensor(values)[:, None, None] for values in (graph.spec.mean, graph.spec.std))
    image = (torch.from_numpy(picture).float().expand(1, 3, 512, 512) / 255 - mean) / std
    with torch.inference_mode():
        maps = chexnet.class_maps(image), chexnet.class_maps(image.flip(3))
    expected = torch.stack(
        [
            torch.sigmoid(chexnet.pool(of_pass[:, :, y // 32 : y // 32 + 14, x // 32 : x // 32 + 14]))
            for of_pass in maps
            for y, x in ((0, 0), (0, 64), (64, 0), (64, 64), (32, 32))
        ]
    ).mean(0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    merged = (maps[0] + maps[1].flip(3)) / 2
    assert class_maps.shape == (1, 14, 16, 16)
    np.testing.assert_allclose(class_maps, merged, atol=1e-4 * float(merged.abs().max()))
    nodes = graph.model.graph.node
    windows = next(a.ints for n in nodes if n.op_type == "MaxMinPool" for a in n.attribute if a.name == "windows")
    assert list(windows) == [0, 0, 14, 14, 0, 2, 14, 14, 2, 0, 14, 14, 2, 2, 14, 14, 1, 1, 14, 14]


@pytest.mark.parametrize("view_set", CROP_VIEW_SETS)
def test_wrong_class_maps_are_noticed(chexnet, view_set):
    graph = export(chexnet, view_set)
    merge = next(tensor for tensor in graph.model.graph.initializer if tensor.name == "maps.merge")
    merge.raw_data = np.roll(np.frombuffer(merge.raw_data, np.float32), 1).tobytes()
    with pytest.raises(GraphError, match="class_maps differ"):
        largest_difference(graph, chexnet)
