"""Features of dense blocks in int8: how they are measured and rounded, and which engines have them."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from random_networks import random_graph

from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu import openvino
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.export.session import run_model
from cxr_trt.precision.float16 import layer_of
from cxr_trt.precision.int8 import quantizable
from cxr_trt.precision.int8_calibration import Int8Calibration
from cxr_trt.precision.int8_features import joined_features, keep_features_in_int8
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.precision.ranges import measure_ranges
from cxr_trt.score.engine import Engine

PICTURES = check_pictures(256)


def scores(model):
    return run_model(model, "the graph", ["probabilities"], {"images": PICTURES})[0]


def calibrated(graph):
    """int8 as calibrated on two pictures."""
    model = graph.with_views("center").rewritten(Rewrites(share_crops=False))
    ranges = measure_ranges(model, PICTURES, (), lambda _: None, joined_features(model))
    thresholds = {layer_of(node.name): ranges.largest[node.input[0]] for node in quantizable(model)[1:-1]}
    features = {layer_of(name): largest.tolist() for name, largest in ranges.channels.items()}
    calibration = Int8Calibration(graph.weights_sha256, 2, "0" * 64, 0, "max", thresholds, {}, features)
    return PrecisionPlan("int8", calibration=calibration)


@pytest.fixture(scope="module")
def plan(small_graph):
    return calibrated(small_graph)


def has_int8_features(model):
    return any(name.endswith(".from_levels") for node in model.graph.node for name in node.input)


@pytest.fixture
def bfloat16(monkeypatch):
    return lambda is_here: monkeypatch.setattr(openvino, "has_bfloat16", lambda: is_here)


def test_channels_are_measured_over_all_images():
    graph = """
    <ir_version: 9, opset_import: ["": 19]>
    g (uint8[N, 1, 1, 2] images) => (float[N, 2, 1, 2] probabilities)
    <float minus = {-3.0}>
    {
        pixels = Cast <to: int = 1> (images)
        tripled = Mul (pixels, minus)
        probabilities = Concat <axis = 1> (pixels, tripled)
    }
    """
    images = np.array([[[[1, 4]]], [[[3, 2]]]], np.uint8)
    ranges = measure_ranges(parser.parse_model(graph), images, (), lambda _: None, ["probabilities"])
    assert ranges.channels["probabilities"].tolist() == [4.0, 12.0]


def test_all_that_blocks_join_is_measured(plan):
    """58 dense layers, and what enters the four blocks."""
    features = plan.calibration.features
    assert len(features) == 58 + 4
    assert {len(own) for layer, own in features.items() if layer.endswith(".conv2")} == {32}
    assert len(features["features.transition1.se"]) == 128
    assert all(max(own) > 0 for own in features.values())


@pytest.mark.parametrize("setting", ["paper", "no-se"])
@pytest.mark.parametrize("share_crops", [True, False])
def test_all_that_blocks_join_is_int8(setting, share_crops):
    """Also what enters the second block, which has another name where crops share the first one, without a gate."""
    graph = random_graph(setting)
    model = graph.rewritten(Rewrites(share_crops=share_crops))
    changed = keep_features_in_int8(model, calibrated(graph).calibration.features)
    joined = joined_features(changed)
    assert len(joined) >= 58 + 4
    assert [name for name in joined if not name.endswith(".from_levels")] == []


@pytest.mark.parametrize("share_crops", [True, False])
def test_each_channel_is_held_to_half_of_its_own_level(small_graph, plan, share_crops):
    model = small_graph.rewritten(Rewrites(share_crops=share_crops))
    changed = keep_features_in_int8(model, plan.calibration.features)
    onnx.checker.check_model(changed, full_check=True)
    name = next(name for name in joined_features(model) if name.endswith("denseblock4.denselayer3.conv2"))
    before, after = f"{name}.before", f"{name}.from_levels"
    changed.graph.node.append(onnx.helper.make_node("Identity", [name], [before]))
    changed.graph.output.extend(onnx.ValueInfoProto(name=own) for own in (before, after))
    exact, rounded = run_model(changed, "the graph", [before, after], {"images": PICTURES})
    scales = {tensor.name: tensor for tensor in changed.graph.initializer}[f"{layer_of(name)}.channel_scales"]
    levels = numpy_helper.to_array(scales)[None, :, None, None]
    np.testing.assert_allclose(levels.ravel(), np.divide(plan.calibration.features[layer_of(name)], 127), rtol=1e-3)
    inside = np.abs(exact) <= 127 * levels
    assert inside.mean() > 0.8  # other crops than the one that was measured are cut off a little
    assert (np.abs(rounded - exact) <= 0.501 * levels)[inside].all()
    assert len(np.unique(levels)) > 16


def test_scores_stay_close_and_wrong_scales_show(small_graph, plan):
    model = small_graph.rewritten(Rewrites())
    exact, features = scores(model), plan.calibration.features
    found = scores(keep_features_in_int8(model, features))
    assert 1e-6 < np.abs(found - exact).max() < 0.1
    reversed_channels = {layer: own[::-1] for layer, own in features.items()}
    wrong = scores(keep_features_in_int8(model, reversed_channels))
    assert np.abs(wrong - exact).mean() > 2 * np.abs(found - exact).mean()


def test_layers_that_were_not_measured_stay_as_they_are(small_graph, plan):
    model = small_graph.rewritten(Rewrites())
    layer = "features.denseblock2.denselayer5.conv2"
    changed = keep_features_in_int8(model, {layer: plan.calibration.features[layer]})
    assert [node.input[0] for node in changed.graph.node if node.op_type == "QuantizeLinear"] == [layer]
    assert not has_int8_features(keep_features_in_int8(model, {}))


@pytest.mark.parametrize(
    ("backend", "view_set", "with_bfloat16", "expected"),
    [
        ("openvino", "ten-crop", False, True),
        ("openvino", "ten-crop", True, False),
        ("openvino", "center", False, False),
        ("openvino", "center-mirror", False, False),
        ("onnxruntime", "ten-crop", False, False),
        ("tensorrt-rtx", "ten-crop", False, False),
    ],
)
def test_engines_have_them_where_they_were_measured_to_pay(
    small_graph, plan, bfloat16, backend, view_set, with_bfloat16, expected
):
    bfloat16(with_bfloat16)
    graph = small_graph.with_views(view_set)
    assert has_int8_features(plan.engine_graph(graph, BACKENDS[backend])) == expected
    assert not has_int8_features(PrecisionPlan().engine_graph(graph, BACKENDS[backend]))


def test_a_calibration_without_them_still_makes_engines(small_graph, plan, bfloat16):
    bfloat16(False)
    earlier = replace(plan, calibration=replace(plan.calibration, features={}))
    model = earlier.engine_graph(small_graph, BACKENDS["openvino"])
    assert not has_int8_features(model)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def test_openvino_computes_what_the_graph_says(small_graph, plan, bfloat16, tmp_path):
    """With four levels per sign in place of 127, so that what int8 features do is more than other rounding."""
    bfloat16(False)
    measured = plan.calibration.features
    coarse, earlier = (
        replace(plan, calibration=replace(plan.calibration, features=features))
        for features in ({layer: [32 * value for value in own] for layer, own in measured.items()}, {})
    )
    expected, without = (scores(own.engine_graph(small_graph, BACKENDS["openvino"])) for own in (coarse, earlier))
    build_bundle(BuildRequest(small_graph, BACKENDS["openvino"], coarse), tmp_path / "e.cxr")
    with Engine(tmp_path / "e.cxr") as engine:
        found = engine.run(PICTURES).probabilities
        assert engine.manifest.settings["int8"]["int8_features"] is True
    assert np.abs(found - expected).mean() < 0.6 * np.abs(without - expected).mean()
