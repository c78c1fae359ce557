"""A first convolution that reads the grey picture itself gives what it gave of the normalised channels."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.export.grey_stem import read_grey
from cxr_trt.export.network_graph import CROPS, OUTPUTS, PREFIX, NetworkGraph
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.precision.plan import FLOAT32
from cxr_trt.spec import Specification
from cxr_trt.views import Size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEMS = {
    "padded": {"pads": [3, 3, 3, 3], "strides": [2, 2]},
    "padded on one side": {"pads": [0, 1, 2, 3]},
    "same size": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    "patches": {"strides": [7, 7]},
    "dilated": {"pads": [4, 4, 4, 4], "dilations": [2, 2]},
}


def scoring_graph(channels=3, bias=True, views="whole", group=1, **attributes):
    """A network of one convolution and the mean of its features, for 40 x 48 pixels."""
    rng = np.random.default_rng(0)
    weights = {
        f"{PREFIX}kernel": rng.standard_normal((5 * group, channels // group, 7, 7), np.float32) / 7,
        f"{PREFIX}bias": rng.standard_normal(5 * group, np.float32),
        f"{PREFIX}shape": np.array([0, 5 * group], np.int64),
    }
    inputs = [f"{PREFIX}crops", f"{PREFIX}kernel", *[f"{PREFIX}bias"] * bias]
    nodes = [
        helper.make_node("Identity", [CROPS], [f"{PREFIX}crops"], name=f"{PREFIX}crops"),
        helper.make_node("Shape", [f"{PREFIX}crops"], [f"{PREFIX}size"], name=f"{PREFIX}size"),
        helper.make_node("Conv", inputs, [f"{PREFIX}features"], name=f"{PREFIX}stem", group=group, **attributes),
        helper.make_node("Relu", [f"{PREFIX}features"], [f"{PREFIX}relu"], name=f"{PREFIX}relu"),
        helper.make_node("GlobalAveragePool", [f"{PREFIX}relu"], [f"{PREFIX}mean"], name=f"{PREFIX}mean"),
        helper.make_node("Reshape", [f"{PREFIX}mean", f"{PREFIX}shape"], [OUTPUTS], name=OUTPUTS),
    ]
    tensors = tuple(numpy_helper.from_array(array, name) for name, array in weights.items())
    network = NetworkGraph(tuple(nodes), tensors, {"": 19}, has_maps=False)
    spec = Specification(
        findings=tuple("ABCDEFGHIJKLMNO"[: 5 * group]),
        image_size=Size(40, 48),
        crop_size=Size(40, 48),
        views=views,
        mean=MEAN[:channels],
        std=STD[:channels],
        pooling=None,
        maps="none",
    )
    return ScoringGraph.around(network, GraphInfo.of_this_version(spec, "untrained", "0" * 64))


def probabilities(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": check_pictures(Size(40, 48))})[0]


def stem_of(model):
    (stem,) = (node for node in model.graph.node if node.op_type == "Conv")
    return next(tensor for tensor in model.graph.initializer if tensor.name == stem.input[1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stem", STEMS)
def test_it_changes_rounding_alone(stem, bias):
    graph = scoring_graph(bias=bias, **STEMS[stem])
    model = read_grey(graph.model)
    assert list(stem_of(model).dims) == [5, 1, 7, 7]
    expected = probabilities(graph.model)
    np.testing.assert_allclose(probabilities(model), expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.05
    onnx.checker.check_model(model, full_check=True)


def test_nothing_remains_of_the_normalisation():
    model = read_grey(scoring_graph(**STEMS["patches"]).model)
    names = {node.name for node in model.graph.node} | {tensor.name for tensor in model.graph.initializer}
    assert not [name for name in names if "normalise" in name or name == f"{PREFIX}kernel"]
    constant = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(".constant"))
    assert list(constant.dims) == [1, 5, 1, 1]  # no padding, so that it is the same everywhere


@pytest.mark.parametrize("options", [{"channels": 1}, {"group": 3}])
def test_other_stems_stay_as_they_are(options):
    graph = scoring_graph(**options, **STEMS["padded"])
    before = [node for node in graph.model.graph.node if node.op_type != "Shape"]  # which nothing uses
    assert list(read_grey(graph.model).graph.node) == before


def test_a_constant_as_large_as_a_large_picture_is_not_made(monkeypatch):
    monkeypatch.setattr("cxr_trt.export.grey_stem.MAX_CONSTANT", 5 * 20 * 24 - 1)  # the features have 5 x 20 x 24
    assert list(stem_of(read_grey(scoring_graph(**STEMS["padded"]).model)).dims)[1] == 3
    assert list(stem_of(read_grey(scoring_graph(**STEMS["patches"]).model)).dims)[1] == 1


@pytest.mark.parametrize("second", ["Conv", "AveragePool"])
def test_a_picture_that_is_read_twice_stays_normalised(second):
    graph = scoring_graph(**STEMS["padded"])
    inputs = ["view.normalised"] + ([f"{PREFIX}kernel"] if second == "Conv" else [])
    attributes = {} if second == "Conv" else {"kernel_shape": [2, 2]}
    graph.model.graph.node.append(helper.make_node(second, inputs, ["more"], name="more", **attributes))
    graph.model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    assert any(node.name == "view.normalised" for node in read_grey(graph.model).graph.node)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_backend_says_whether_it_wants_it(wanted):
    graph = scoring_graph(**STEMS["padded"])
    form = SimpleNamespace(
        share_crops=False,
        chunk_concats=False,
        rewrite_networks=wanted,
        crops_in_turn=False,
        int8_features=False,
        on_cpu=True,
        sets_float16=False,
    )
    assert list(stem_of(FLOAT32.engine_graph(graph, form)).dims)[1] == (1 if wanted else 3)
