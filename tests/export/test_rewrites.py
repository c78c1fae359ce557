"""Each exact rewrite: the same numbers as the graph without it, but for rounding."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from random_networks import random_graph

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import NO_REWRITES, Rewrites
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.model.settings import SETTINGS
from cxr_trt.spec import Specification

EACH = {
    "average_maps": replace(NO_REWRITES, average_maps=True),
    "fold_norms": replace(NO_REWRITES, fold_norms=True),
    "pool_first": replace(NO_REWRITES, pool_first=True),
    "share_crops": replace(NO_REWRITES, pool_first=True, share_crops=True),
    "chunk_concats": replace(NO_REWRITES, fold_norms=True, chunk_concats=True),
    "all": Rewrites(chunk_concats=True),
}
SETTINGS_WITH_AND_WITHOUT_GATES = ("paper", "no-se")


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "class_maps"], {"images": images})


@pytest.fixture(scope="module", params=SETTINGS_WITH_AND_WITHOUT_GATES)
def graph(request):
    return random_graph(request.param)


@pytest.fixture(scope="module")
def image():
    return check_pictures(256)[1:]


@pytest.fixture(scope="module")
def results(graph, image):
    """Probabilities and class maps without any rewrite, and with each."""
    return {name: run(graph.rewritten(rewrites), image) for name, rewrites in {"none": NO_REWRITES, **EACH}.items()}


@pytest.mark.parametrize("name", EACH)
def test_a_rewrite_changes_rounding_alone(results, name):
    probabilities, maps = results["none"]
    found, found_maps = results[name]
    np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-5 * np.abs(maps).max())
    assert np.ptp(probabilities) > 0.05


def test_sharing_changes_no_bit(results):
    """The same operations on the same numbers."""
    np.testing.assert_allclose(results["share_crops"][0], results["pool_first"][0], rtol=0, atol=1e-7)


def test_what_the_rewrites_leave_out(graph):
    before, after = (
        Counter(node.op_type for node in graph.rewritten(rewrites).graph.node)
        for rewrites in (NO_REWRITES, Rewrites(share_crops=False))
    )
    assert before["BatchNormalization"] - after["BatchNormalization"] == 1 + 58  # the stem's, and one per dense layer
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.rewritten(Rewrites()).graph.initializer}
    assert shapes["transfer.conv.weight"] == [14, 1024, 1, 1]
    weights, settings = graph.network()
    assert weights["transfer.conv.weight"].shape[0] == 14 * settings.maps_per_finding


def test_features_are_joined_after_every_four_layers(graph):
    names = [node.name for node in graph.rewritten(EACH["chunk_concats"]).graph.node if node.op_type == "Concat"]
    joined = [name for name in names if name.startswith("features.denseblock2.") and name.endswith(".concat")]
    assert joined == [f"features.denseblock2.denselayer{i}.concat" for i in (5, 9)]


@pytest.mark.parametrize("view_set", ["ten-crop", "center"])
def test_all_rewrites_pass_the_full_check_of_onnx(graph, view_set):
    onnx.checker.check_model(graph.with_views(view_set).rewritten(Rewrites(chunk_concats=True)), full_check=True)


def test_inputs_outputs_and_metadata_stay(graph):
    model = graph.rewritten(Rewrites())
    assert model.graph.input == graph.model.graph.input
    assert model.graph.output == graph.model.graph.output
    assert model.metadata_props == graph.model.metadata_props


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_network_is_read_back_from_its_graph(setting):
    pytest.importorskip("torch", reason="needs pip install 'cxr-trt[export]'")
    from cxr_trt.model.network import Network

    settings, rng = SETTINGS[setting], np.random.default_rng(0)
    shapes = {key: value.shape for key, value in Network(settings).state_dict().items() if value.is_floating_point()}
    weights = {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
    spec = Specification(views="center", pooling=settings.pooling)
    graph = ScoringGraph.from_network(weights, settings, GraphInfo.of_this_version(spec, "untrained", "0" * 64))
    found, found_settings = graph.network()
    assert found_settings == settings
    for key, values in weights.items():
        np.testing.assert_array_equal(found[key], values)


def test_tensorrt_rtx_builds_the_graph_of_shared_crops(small_graph, tmp_path):
    backend = BACKENDS["tensorrt-rtx"]
    if reason := backend.why_not_build():
        pytest.skip(reason)
    backend.build(small_graph.rewritten(Rewrites()), tmp_path, BuildOptions(2))
    assert (tmp_path / "engine.plan").stat().st_size > 20e6
