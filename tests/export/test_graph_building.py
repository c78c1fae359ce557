"""The scoring graph of every setting and view set against PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cxr_trt.errors import GraphError
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.graph_building import build_graph
from cxr_trt.export.verify import verify
from cxr_trt.model.network import Network
from cxr_trt.model.scorer import Scorer
from cxr_trt.model.settings import SETTINGS, ModelSettings
from cxr_trt.spec import Specification
from cxr_trt.views import VIEW_SETS


def export(network, view_set, class_maps=True):
    settings = network.settings
    spec = Specification(views=view_set, k_max=settings.k_max, k_min=settings.k_min, alpha=settings.alpha)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    metadata = GraphInfo.of(spec, "untrained", "0" * 64).to_metadata()
    return build_graph(weights, settings, spec, metadata, class_maps=class_maps), spec


def random_network(settings):
    """Random weights, and batch statistics that the built-in pictures give, so that every layer matters."""
    torch.manual_seed(1)
    network = Network(settings)
    pictures = torch.from_numpy(check_pictures(448)).float().expand(-1, 3, -1, -1)
    with torch.inference_mode():
        network.train()((pictures - 120) / 60)
    return network.eval()


CASES = {**SETTINGS, "k of 5 and 20": ModelSettings(k_max=5, k_min=20, alpha=0.3)}


PAIRS = [(name, view_set) for name in CASES for view_set in ("center", "dense")] + [("paper", v) for v in VIEW_SETS[:3]]


@pytest.mark.parametrize(("name", "view_set"), PAIRS)
def test_graph_agrees_with_pytorch(name, view_set, tmp_path):
    network = random_network(CASES[name])
    model, spec = export(network, view_set)
    onnx.checker.check_model(model, full_check=True)
    assert verify(model, Scorer(network, spec), check_pictures(512)[:1]) <= 1e-5
    onnx.save(model, tmp_path / "model.onnx")
    assert read_scoring_graph(tmp_path / "model.onnx")[1].spec == spec


@pytest.fixture(scope="module")
def chexnet():
    return random_network(SETTINGS["chexnet"])


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def test_a_batch_gives_what_its_images_give_one_by_one(chexnet):
    model, _ = export(chexnet, "center")
    pictures = check_pictures(512)
    together = run(model, pictures)
    for i in range(len(pictures)):
        for whole, single in zip(together, run(model, pictures[i : i + 1]), strict=True):
            np.testing.assert_allclose(whole[i], single[0], atol=1e-6)
    assert np.abs(together[0][0] - together[0][1]).max() > 0.01  # the pictures are told apart


def test_class_maps_are_optional(chexnet):
    model, _ = export(chexnet, "center", class_maps=False)
    assert [output.name for output in model.graph.output] == ["probabilities"]
    assert not any(name.startswith("maps.") for node in model.graph.node for name in node.output)


def test_mirroring_the_image_mirrors_ten_crop_class_maps(chexnet):
    model, _ = export(chexnet, "ten-crop")
    picture = check_pictures(512)[1:]
    plain, mirrored = run(model, picture), run(model, np.ascontiguousarray(picture[..., ::-1]))
    np.testing.assert_allclose(plain[0], mirrored[0], atol=1e-5)
    np.testing.assert_allclose(plain[1], mirrored[1][..., ::-1], atol=1e-4)


@pytest.mark.parametrize("view_set", ["center", "dense"])
def test_a_wrong_weight_is_noticed(chexnet, view_set):
    model, spec = export(chexnet, view_set)
    weight = next(t for t in model.graph.initializer if t.name == "features.denseblock4.denselayer16.conv2.weight")
    weight.raw_data = np.roll(np.frombuffer(weight.raw_data, np.float32), 1).tobytes()
    with pytest.raises(GraphError, match="differ from PyTorch's"):
        verify(model, Scorer(chexnet, spec), check_pictures(512)[:1])


def test_nan_is_noticed():
    network = Network(SETTINGS["chexnet"])
    network.transfer.conv.bias.data[3] = torch.nan
    model, spec = export(network, "center")
    with pytest.raises(GraphError, match="Are all weights finite"):
        verify(model, Scorer(network, spec), check_pictures(512)[:1])


def test_dense_views_are_the_network_on_the_whole_image_pooled_where_the_crops_lie(chexnet):
    """Straight from the definition: no view, window or cell of the project's own."""
    picture = check_pictures(512)[:1]
    model, spec = export(chexnet, "dense")
    probabilities, class_maps = run(model, picture)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
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
    windows = next(
        a.ints for n in model.graph.node if n.op_type == "MaxMinPool" for a in n.attribute if a.name == "windows"
    )
    assert list(windows) == [0, 0, 14, 14, 0, 2, 14, 14, 2, 0, 14, 14, 2, 2, 14, 14, 1, 1, 14, 14]


@pytest.mark.parametrize("view_set", VIEW_SETS)
def test_wrong_class_maps_are_noticed(chexnet, view_set):
    model, spec = export(chexnet, view_set)
    merge = next(t for t in model.graph.initializer if t.name == "maps.merge")
    merge.raw_data = np.roll(np.frombuffer(merge.raw_data, np.float32), 1).tobytes()
    with pytest.raises(GraphError, match="class_maps differ"):
        verify(model, Scorer(chexnet, spec), check_pictures(512)[:1])
