"""Float16: the types of the graph, and what its rounding does to the results."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.precision.float16 import layer_of, rounded_to_float16, to_float16


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "class_maps"], {"images": images})


@pytest.fixture(scope="module", params=[False, True], ids=["crops apart", "crops shared"])
def model(small_graph, request):
    return small_graph.rewritten(Rewrites(affine_norms=True, share_crops=request.param))


def types(model):
    """Element type of every tensor, as ONNX's own inference finds them."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return values | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def test_the_network_is_float16_and_what_needs_digits_float32(model):
    typed = to_float16(model, ())
    onnx.checker.check_model(typed, full_check=True)
    found = types(typed)
    for node in typed.graph.node:
        layer = layer_of(node.name)
        if node.op_type in ("Conv", "Relu", "MaxPool", "AveragePool") and ".se." not in layer:
            assert found[node.output[0]] == TensorProto.FLOAT16, node.name
        if (".se." in layer and node.op_type in ("ReduceMean", "Gemm", "Sigmoid")) or layer.startswith("pool"):
            assert found[node.output[0]] == TensorProto.FLOAT, node.name
    assert found["probabilities"] == found["class_maps"] == TensorProto.FLOAT
    kernels = [tensor for tensor in typed.graph.initializer if len(tensor.dims) == 4 and "features" in tensor.name]
    assert len(kernels) == 120
    assert {tensor.data_type for tensor in kernels} == {TensorProto.FLOAT16}


def test_results_are_those_of_float32_but_for_rounding(model):
    images = check_pictures(256)
    exact = run(model, images)
    found = run(rounded_to_float16(to_float16(model, ())), images)
    difference = np.abs(found[0] - exact[0]).max()
    assert 1e-6 < difference < 2e-3  # something is rounded, and not much
    np.testing.assert_allclose(found[1], exact[1], rtol=0, atol=5e-3 * np.abs(exact[1]).max())


def test_a_layer_that_is_to_stay_float32_does(model):
    layer = "features.denseblock2.denselayer3.conv2"
    typed = to_float16(model, {layer})
    onnx.checker.check_model(typed, full_check=True)
    found = types(typed)
    assert {found[node.output[0]] for node in typed.graph.node if layer_of(node.name) == layer} == {TensorProto.FLOAT}
    assert found["features.denseblock2.denselayer3.conv1"] == TensorProto.FLOAT16


def test_each_tensor_is_cast_once(model):
    casts = Counter(node.input[0] for node in to_float16(model, ()).graph.node if node.op_type == "Cast")
    assert casts.most_common(1)[0][1] == 1


def test_each_result_is_rounded_between_consecutive_nodes():
    """2048 + 0.7 - 2048 is 0 in float16, whose numbers are two apart there; ONNX Runtime alone would say 0.7."""
    weights = [numpy_helper.from_array(np.array([v], np.float16), name) for name, v in (("a", 2048), ("b", -2048))]
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x16", "a"], ["sum"]),
        helper.make_node("Add", ["sum", "b"], ["rest"]),
        helper.make_node("Mul", ["rest", "rest"], ["square"]),
        helper.make_node("Cast", ["square"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "float16", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(
        rounded_to_float16(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def result(x):
        return session.run(None, {"x": np.array([x], np.float32)})[0][0]

    assert result(0.7) == 0
    assert result(3.0) == 16  # 2051 lies between 2050 and 2052, and goes to the even one
    assert result(600.0) == np.inf  # 600 squared is more than float16 holds
