"""The body of the ONNX function MaxMinPool against equation 4 in NumPy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cxr_trt.export.builder import IR_VERSION, OPSET
from cxr_trt.export.pooling import DOMAIN, DOMAIN_VERSION, NAME, max_min_pool_function


def pooling_model(shape, **attributes):
    graph = helper.make_graph(
        [helper.make_node(NAME, ["maps"], ["scores"], domain=DOMAIN, **attributes)],
        "pooling",
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 1, shape[1]])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(
        graph, functions=[max_min_pool_function(OPSET)], opset_imports=opsets, ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(("k_max", "k_min", "alpha"), [(1, 1, 0.7), (4, 9, 0.7), (35, 35, -1.0), (3, 1, 0.0)])
def test_function_is_equation_4(k_max, k_min, alpha):
    maps = np.random.default_rng(0).normal(size=(3, 14, 5, 7)).astype(np.float32)
    model = pooling_model(maps.shape, k_max=k_max, k_min=k_min, alpha=alpha)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ascending = np.sort(maps.reshape(3, 14, -1).astype(np.float64), axis=2)
    expected = ascending[:, :, -k_max:].mean(2) + alpha * ascending[:, :, :k_min].mean(2)
    np.testing.assert_allclose(session.run(None, {"maps": maps})[0], expected[:, None], rtol=1e-6, atol=1e-6)
