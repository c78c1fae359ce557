"""Int8: what is quantized, how, and how much it changes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.rewrites import Rewrites
from cxr_trt.precision.float16 import layer_of, rounded_to_float16, to_float16
from cxr_trt.precision.int8 import never_negative, quantize
from cxr_trt.precision.ranges import measure_ranges


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": images})[0]


@pytest.fixture(scope="module")
def calibrated(small_graph):
    """A model of one view, and for each convolution in blocks and transitions the largest input on two pictures."""
    model = small_graph.with_views("center").rewritten(Rewrites(affine_norms=True, share_crops=False))
    largest = measure_ranges(model, check_pictures(256), (), lambda fraction: None).largest
    thresholds = {
        node.name: largest[node.input[0]]
        for node in model.graph.node
        if node.op_type == "Conv" and node.name.startswith("features.") and node.name != "features.conv0"
    }
    return model, thresholds


def test_inputs_and_kernels_of_the_chosen_convolutions_are_int8_and_nothing_else(calibrated):
    model, thresholds = calibrated
    chosen = {layer: value for layer, value in thresholds.items() if "denseblock3" in layer}
    quantized = quantize(model, chosen)
    onnx.checker.check_model(quantized, full_check=True)
    made_by = {node.output[0]: node for node in quantized.graph.node}
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    assert len(chosen) == 48
    for node in quantized.graph.node:
        if node.op_type != "Conv":
            continue
        is_quantized = made_by[node.input[0]].op_type == "DequantizeLinear"
        assert is_quantized == (layer_of(node.name) in chosen)
        if is_quantized:
            assert made_by[made_by[node.input[0]].input[0]].op_type == "QuantizeLinear"
            kernel, scales, zeros = made_by[node.input[1]].input
            assert weights[kernel].data_type == TensorProto.INT8
            assert list(weights[scales].dims) == [weights[kernel].dims[0]]
            assert not numpy_helper.to_array(weights[zeros]).any()
            if len(node.input) > 2:
                assert weights[node.input[2]].data_type == TensorProto.FLOAT
    quantizers = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    assert quantizers == len(chosen)


def test_a_kernel_is_held_to_half_a_step_of_its_channel(calibrated):
    model, thresholds = calibrated
    layer = "features.denseblock1.denselayer1.conv2"
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}[f"{layer}.weight"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantize(model, thresholds).graph.initializer}
    scales = weights[f"{layer}.weight.scale"][:, None, None, None]
    error = np.abs(weights[f"{layer}.weight.int8"] * scales - before)
    assert (error <= 0.5 * scales + 1e-3 * np.abs(before).max()).all()
    np.testing.assert_allclose(scales.ravel(), np.abs(before).max((1, 2, 3)) / 127, rtol=1e-3)
    np.testing.assert_array_equal(scales, scales.astype(np.float16))


def test_scores_stay_close_and_a_wrong_scale_shows(calibrated):
    model, thresholds = calibrated
    images = check_pictures(256)
    exact = run(model, images)
    found = run(quantize(model, thresholds), images)
    assert 1e-5 < np.abs(found - exact).max() < 0.1
    cut = run(quantize(model, {layer: value / 20 for layer, value in thresholds.items()}), images)
    assert np.abs(cut - exact).mean() > 3 * np.abs(found - exact).mean()


def test_without_a_sign_inputs_have_twice_the_levels_where_nothing_is_negative(calibrated):
    model, thresholds = calibrated
    images = check_pictures(256)
    exact = run(model, images)
    signed, unsigned = quantize(model, thresholds), quantize(model, thresholds, unsigned=True)
    onnx.checker.check_model(unsigned, full_check=True)
    zeros = {node.input[2] for node in unsigned.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {"zero.unsigned"}  # every convolution of this network follows a ReLU, or a pooling behind one
    errors = [np.sqrt(((run(quantized, images) - exact) ** 2).mean()) for quantized in (signed, unsigned)]
    assert errors[1] < errors[0]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in unsigned.graph.initializer}
    for layer, threshold in thresholds.items():
        np.testing.assert_allclose(weights[f"{layer}.scale"], threshold / 255, rtol=1e-3)


def test_what_may_be_negative_keeps_its_sign():
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    graph (float[1, 2, 4, 4] x, float[1, 2, 4, 4] y) => (float[1, 4, 2, 2] joined, float[1, 4, 2, 2] mixed)
    {
        a = Relu (x)
        b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        c = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (y)
        d = Sigmoid (c)
        joined = Concat <axis = 1> (b, d)
        mixed = Concat <axis = 1> (b, c)
    }
    """
    assert never_negative(onnx.parser.parse_model(text)) == {"a", "b", "d", "joined"}


def test_float16_around_int8_gives_the_same_but_for_rounding(calibrated):
    model, thresholds = calibrated
    typed = to_float16(quantize(model, thresholds), ())
    onnx.checker.check_model(typed, full_check=True)
    scales = [tensor for tensor in typed.graph.initializer if ".scale" in tensor.name and "norm" not in tensor.name]
    assert {tensor.data_type for tensor in scales if "normalise" not in tensor.name} == {TensorProto.FLOAT16}
    images = check_pictures(256)
    np.testing.assert_allclose(
        run(rounded_to_float16(typed), images), run(quantize(model, thresholds), images), rtol=0, atol=0.02
    )
