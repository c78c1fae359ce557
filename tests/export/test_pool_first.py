"""A 1x1 convolution and the pooling behind it, in the other order."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.export.network_graph import CROPS, OUTPUTS, PREFIX, NetworkGraph
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.pool_first import pool_before_convolutions
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.spec import Specification
from cxr_trt.views import Size

POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}


def scoring_model(conv=None, pool=POOL, kernel=1):
    """A network of a convolution, an average pooling, a ReLU and the mean of its features, for 31 x 40 pixels."""
    rng = np.random.default_rng(0)
    weights = {
        f"{PREFIX}kernel": rng.standard_normal((6, 3, kernel, kernel), np.float32),
        f"{PREFIX}bias": rng.standard_normal(6, np.float32),
    }
    names = [f"{PREFIX}{name}" for name in ("conv", "pool", "relu", "mean")]
    nodes = [
        helper.make_node("Conv", [CROPS, *weights], names[:1], name=names[0], **(conv or {})),
        helper.make_node("AveragePool", names[:1], names[1:2], name=names[1], **pool),
        helper.make_node("Relu", names[1:2], names[2:3], name=names[2]),
        helper.make_node("GlobalAveragePool", names[2:3], names[3:], name=names[3]),
        helper.make_node("Flatten", names[3:], [OUTPUTS], name=f"{PREFIX}flatten"),
    ]
    tensors = tuple(numpy_helper.from_array(array, name) for name, array in weights.items())
    network = NetworkGraph(tuple(nodes), tensors, {"": 19}, has_maps=False)
    size = Size(31, 40)
    spec = Specification(
        findings=tuple("ABCDEF"),
        image_size=size,
        crop_size=size,
        views="whole",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.2),
        pooling=None,
        maps="none",
    )
    return ScoringGraph.around(network, GraphInfo.of_this_version(spec, "untrained", "0" * 64)).model


def probabilities(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": check_pictures(Size(31, 40))})[0]


def order(model):
    return [node.op_type for node in model.graph.node if node.op_type in ("Conv", "AveragePool")]


@pytest.mark.parametrize("pool", [POOL, {"kernel_shape": [3, 2], "strides": [1, 2]}])
def test_it_changes_rounding_alone(pool):
    model = scoring_model(pool=pool)
    swapped = pool_before_convolutions(model)
    assert (order(model), order(swapped)) == (["Conv", "AveragePool"], ["AveragePool", "Conv"])
    onnx.checker.check_model(swapped, full_check=True)
    expected = probabilities(model)
    np.testing.assert_allclose(probabilities(swapped), expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"pool": {**POOL, "pads": [1, 1, 0, 0]}},  # a bias would be averaged with zeros
        {"pool": {**POOL, "auto_pad": "SAME_UPPER"}},
        {"pool": {**POOL, "ceil_mode": 1}},
        {"conv": {"strides": [2, 2]}},
        {"conv": {"pads": [1, 1, 1, 1]}},
        {"kernel": 3},
    ],
)
def test_what_would_change_the_numbers_stays(options):
    model = scoring_model(**options)
    assert pool_before_convolutions(model).graph == model.graph


def test_features_that_something_else_reads_stay():
    model = scoring_model()
    model.graph.output.append(helper.make_tensor_value_info(f"{PREFIX}conv", TensorProto.FLOAT, None))
    assert pool_before_convolutions(model).graph == model.graph
