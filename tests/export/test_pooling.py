"""The body of the ONNX function MaxMinPool against equation 4 in NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cxr_trt.export.builder import IR_VERSION, OPSET
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.pooling import (
    POOLING_DOMAIN,
    POOLING_DOMAIN_VERSION,
    POOLING_OPERATOR,
    max_min_pool_function,
    takes_extrema,
    with_extrema,
    without_body,
)
from cxr_trt.export.scoring_graph import ScoringGraph


def pooling_model(shape, element=TensorProto.FLOAT, **attributes):
    windows = len(attributes.get("windows", ())) // 4
    graph = helper.make_graph(
        [helper.make_node(POOLING_OPERATOR, ["maps"], ["scores"], domain=POOLING_DOMAIN, **attributes)],
        "pooling",
        [helper.make_tensor_value_info("maps", element, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], windows or 1, shape[1]])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(POOLING_DOMAIN, POOLING_DOMAIN_VERSION)]
    model = helper.make_model(
        graph, functions=[max_min_pool_function(OPSET, windows)], opset_imports=opsets, ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, maps):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"maps": maps})[0]


@pytest.mark.parametrize(("k_max", "k_min", "alpha"), [(1, 1, 0.7), (4, 9, 0.7), (35, 35, -1.0), (3, 1, 0.0)])
def test_function_is_equation_4(k_max, k_min, alpha):
    maps = np.random.default_rng(0).normal(size=(3, 14, 5, 7)).astype(np.float32)
    model = pooling_model(maps.shape, k_max=k_max, k_min=k_min, alpha=alpha)
    ascending = np.sort(maps.reshape(3, 14, -1).astype(np.float64), axis=2)
    expected = ascending[:, :, -k_max:].mean(2) + alpha * ascending[:, :, :k_min].mean(2)
    np.testing.assert_allclose(run(model, maps), expected[:, None], rtol=1e-6, atol=1e-6)


WINDOWS = [(0, 0, 5, 7), (4, 6, 1, 1), (1, 2, 3, 4), (0, 3, 5, 2), (1, 2, 3, 4)]


@pytest.mark.parametrize("count", [1, len(WINDOWS)])
def test_windows_are_pooled_one_by_one(count):
    maps = np.random.default_rng(0).normal(size=(3, 14, 5, 7)).astype(np.float32)
    flat = [number for window in WINDOWS[:count] for number in window]
    scores = run(pooling_model(maps.shape, k_max=1, k_min=1, alpha=0.7, windows=flat), maps)
    parts = [maps[:, :, y : y + h, x : x + w] for y, x, h, w in WINDOWS[:count]]
    expected = np.stack([part.max((2, 3)) + 0.7 * part.min((2, 3)) for part in parts], 1)
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)


def test_a_window_has_its_own_largest_and_smallest_cells():
    maps = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    scores = run(pooling_model(maps.shape, k_max=2, k_min=3, alpha=-1.0, windows=[1, 1, 2, 2, 0, 0, 3, 4]), maps)
    # of 5, 6, 9, 10: (10 + 9) / 2 - (5 + 6 + 9) / 3; of 0 to 11: (11 + 10) / 2 - (0 + 1 + 2) / 3
    first = [9.5 - 20 / 3, 10.5 - 1]
    np.testing.assert_allclose(scores, [[[first[0]] * 2, [first[1]] * 2]], rtol=1e-6)


def test_half_precision_is_computed_in_float32():
    maps = np.array([[[[2048, 1, 1, 0]]]], np.float16)
    scores = run(pooling_model(maps.shape, TensorProto.FLOAT16, k_max=3, k_min=1, alpha=1.0), maps)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[[2050 / 3]]], rtol=1e-6)  # in float16, 2048 + 1 is 2048


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize(("k_max", "k_min"), [(1, 1), (2, 3)])
def test_infinities_are_those_of_the_network(k_max, k_min, alpha):
    torch = pytest.importorskip("torch")
    from cxr_trt.model.network import MaxMinPool

    inf = np.inf
    rows = [[-inf, 1, 2, 3], [inf, 1, 2, 3], [-inf, inf, 0, 0], [inf] * 4, [-inf] * 4]
    maps = np.array(rows, np.float32).reshape(1, 5, 2, 2)
    expected = MaxMinPool(k_max, k_min, alpha)(torch.from_numpy(maps)).numpy()
    scores = run(pooling_model(maps.shape, k_max=k_max, k_min=k_min, alpha=alpha), maps)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("alpha", [0.0, 0.7, -1.0])
@pytest.mark.parametrize("count", [0, 1, len(WINDOWS)])
def test_one_maximum_and_one_minimum_need_no_sorting(count, alpha, element):
    maps = np.random.default_rng(0).normal(size=(3, 14, 5, 7)).astype(helper.tensor_dtype_to_np_dtype(element))
    maps[0, 0, 1, 2], maps[0, 1, 3, 4] = np.inf, -np.inf
    windows = {"windows": [number for window in WINDOWS[:count] for number in window]} if count else {}
    model = pooling_model(maps.shape, element, k_max=1, k_min=1, alpha=alpha, **windows)
    assert takes_extrema(model)
    rewritten = with_extrema(model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert not any(node.op_type == "TopK" for function in rewritten.functions for node in function.node)
    np.testing.assert_array_equal(run(rewritten, maps), run(model, maps))


@pytest.mark.parametrize(("k_max", "k_min"), [(2, 1), (1, 3)])
def test_more_than_one_is_sorted(k_max, k_min):
    assert not takes_extrema(pooling_model((1, 14, 7, 7), k_max=k_max, k_min=k_min, alpha=0.7))


@pytest.mark.parametrize("view_set", ["center", "dense"])
def test_the_scores_of_the_shipped_model_are_the_same_without_sorting(paper_model, view_set):
    model = ScoringGraph.load(paper_model).with_views(view_set).model
    assert takes_extrema(model)
    images = check_pictures(512)
    before, after = (
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["probabilities"], {"images": images}
        )[0]
        for graph in (model, with_extrema(model))
    )
    np.testing.assert_array_equal(after, before)


def test_the_body_can_be_left_out():
    model = pooling_model((1, 14, 7, 7), k_max=1, k_min=1, alpha=0.7)
    bare = without_body(model)
    assert (len(model.functions), len(bare.functions)) == (1, 0)
    assert bare.graph == model.graph
    assert bare.opset_import == model.opset_import
