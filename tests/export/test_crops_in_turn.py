"""Scoring one crop after the other gives what scoring them all at once gives."""

import numpy as np
import onnx
import onnxruntime
import pytest

from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.crops_in_turn import score_crops_in_turn
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import NO_REWRITES, Rewrites
from cxr_trt.precision.int8 import quantizable, quantize
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan
from cxr_trt.score.engine import Engine


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def scan_of(model):
    return next((node for node in model.graph.node if node.op_type == "Scan"), None)


def body_of(model):
    return next(attribute.g for attribute in scan_of(model).attribute if attribute.HasField("g"))


@pytest.fixture(scope="module")
def images():
    return check_pictures(256)


@pytest.mark.parametrize(
    ("rewrites", "begins_with"), [(NO_REWRITES, "view.normalised"), (Rewrites(chunk_concats=True), "early")]
)
def test_it_changes_rounding_alone(small_graph, images, rewrites, begins_with):
    model = small_graph.rewritten(rewrites)
    in_turn = score_crops_in_turn(model)
    onnx.checker.check_model(in_turn, full_check=True)
    assert list(scan_of(in_turn).input) == [begins_with]
    assert "Conv" not in {node.op_type for node in in_turn.graph.node if begins_with == "view.normalised"}
    for found, expected in zip(run(in_turn, images), run(model, images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
        assert np.ptp(expected) > 0.05
    assert in_turn.graph.output == model.graph.output


def test_no_weight_is_kept_twice(small_graph):
    model = small_graph.rewritten(Rewrites())
    in_turn = score_crops_in_turn(model)
    inside = {tensor.name for tensor in body_of(in_turn).initializer}
    outside = {tensor.name for tensor in in_turn.graph.initializer}
    assert "transfer.conv.weight" in inside
    assert not [name for name in inside & outside if name.endswith(".weight")]
    assert in_turn.ByteSize() < 1.01 * model.ByteSize()


def test_quantized_graphs_stay_as_they_are(small_graph):
    model = small_graph.rewritten(Rewrites())
    layers = [node.name for node in quantizable(model)][-3:]
    quantized = quantize(model, dict.fromkeys(layers, 4.0))
    assert score_crops_in_turn(quantized) is quantized


def test_what_ends_before_the_pooling_elsewhere_stays_as_it_is(small_graph):
    """A graph of which something inside the network is an output too."""
    model = small_graph.rewritten(Rewrites())
    name = next(node.output[0] for node in model.graph.node if node.name.endswith("denseblock4"))
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    assert score_crops_in_turn(model) is model


@pytest.mark.parametrize(("backend", "in_turn"), [("openvino", True), ("onnxruntime", True), ("tensorrt-rtx", False)])
@pytest.mark.parametrize("view_set", ["ten-crop", "center"])
def test_cpus_get_several_crops_in_turn(small_graph, backend, in_turn, view_set):
    model = FLOAT32.engine_graph(small_graph.with_views(view_set), BACKENDS[backend])
    assert (scan_of(model) is not None) == (in_turn and view_set == "ten-crop")


def test_openvino_scores_batches_of_all_sizes(small_graph, build, images):
    expected = run(small_graph.model, images)
    with Engine(build(small_graph, max_batch=2)) as engine:
        for count in (2, 1):
            outputs = engine.run(images[:count], class_maps=True)
            np.testing.assert_allclose(outputs.probabilities, expected[0][:count], rtol=0, atol=1e-5)
            np.testing.assert_allclose(outputs.class_maps, expected[1][:count], rtol=0, atol=1e-4)


def test_a_graph_that_becomes_float16_scores_all_crops_at_once(small_graph):
    model = PrecisionPlan("fp16").engine_graph(small_graph, BACKENDS["onnxruntime"])
    assert scan_of(model) is None
    assert scan_of(FLOAT32.engine_graph(small_graph, BACKENDS["onnxruntime"])) is not None
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
