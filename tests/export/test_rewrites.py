"""Each exact rewrite: the same numbers as the graph without it, but for rounding."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.scoring_graph import GraphInfo
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import NONE, Rewrites, read_network
from cxr_trt.export.graph_building import build_graph

ONE_BY_ONE = {
    "average_maps": replace(NONE, average_maps=True),
    "fold_norms": replace(NONE, fold_norms=True),
    "pool_first": replace(NONE, pool_first=True),
    "share_crops": replace(NONE, pool_first=True, share_crops=True),
    "all": Rewrites(),
}


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "class_maps"], {"images": images})


def build(small_network, rewrites, **changes):
    weights, settings, spec = small_network
    spec = replace(spec, **changes)
    return build_graph(weights, settings, spec, {}, class_maps=True, rewrites=rewrites)


@pytest.fixture(scope="module")
def plain(small_network):
    images = check_pictures(256)
    return images, run(build(small_network, NONE), images)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_a_rewrite_changes_rounding_alone(small_network, plain, name):
    images, (probabilities, maps) = plain
    found, found_maps = run(build(small_network, ONE_BY_ONE[name]), images)
    np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found_maps, maps, rtol=0, atol=1e-5 * np.abs(maps).max())
    assert np.ptp(probabilities) > 0.05


def test_sharing_changes_no_bit(small_network, plain):
    """The same operations on the same numbers."""
    images, _ = plain
    apart, shared = (
        run(build(small_network, replace(ONE_BY_ONE[name])), images) for name in ("pool_first", "share_crops")
    )
    np.testing.assert_allclose(shared[0], apart[0], rtol=0, atol=1e-7)


def test_what_the_rewrites_leave_out(small_network):
    weights, settings, _ = small_network
    before, after = (
        Counter(node.op_type for node in build(small_network, r).graph.node)
        for r in (NONE, Rewrites(share_crops=False))
    )
    assert before["BatchNormalization"] - after["BatchNormalization"] == 1 + 58  # the stem's, and one a dense layer
    shapes = {t.name: list(t.dims) for t in build(small_network, Rewrites()).graph.initializer}
    assert shapes["transfer.conv.weight"] == [14, 1024, 1, 1]
    assert weights["transfer.conv.weight"].shape[0] == 14 * settings.maps_per_finding


@pytest.mark.parametrize("view_set", ["ten-crop", "center"])
def test_all_rewrites_pass_the_full_check_of_onnx(small_network, view_set):
    onnx.checker.check_model(build(small_network, Rewrites(), views=view_set), full_check=True)


def test_the_network_is_read_back_from_its_graph(small_network):
    weights, settings, spec = small_network
    info = GraphInfo.of(spec, "untrained", "0" * 64)
    found, found_settings = read_network(build(small_network, NONE), info)
    assert found_settings == settings
    for key, value in weights.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("share_crops", [True, False])
def test_tensorrt_rtx_builds_the_rewritten_graph(small_network, tmp_path, share_crops):
    backend = BACKENDS["tensorrt-rtx"]
    if reason := backend.why_not_build():
        pytest.skip(reason)
    graph, options = (
        build(small_network, Rewrites(share_crops=share_crops)),
        BuildOptions(2),
    )
    backend.build(graph, tmp_path, options)
    assert (tmp_path / "engine.plan").stat().st_size > 20e6
