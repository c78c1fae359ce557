import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.export.storage import pack, unpack


@pytest.fixture(scope="module")
def rounded(center_graph):
    """The centre-crop model with weights that are float16 numbers, but for one kernel."""
    model = onnx.ModelProto()
    model.CopyFrom(center_graph.model)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            if tensor.name == "features.conv0.weight":
                values *= np.float32(1.0001)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def probabilities(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": check_pictures(512)[:2]})[0]


def test_a_packed_model_is_half_as_large_and_computes_the_same(rounded):
    packed = pack(rounded)
    assert packed.ByteSize() < 0.55 * rounded.ByteSize()
    onnx.checker.check_model(packed)
    np.testing.assert_array_equal(probabilities(packed), probabilities(rounded))


def test_reading_a_packed_model_gives_the_model(rounded, tmp_path):
    onnx.save(pack(rounded), tmp_path / "model.onnx")
    model = ScoringGraph.load(tmp_path / "model.onnx").model
    assert [node.name for node in model.graph.node] == [node.name for node in rounded.graph.node]
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_a_weight_that_is_no_float16_number_stays_as_it_is(rounded):
    types = {tensor.name: tensor.data_type for tensor in pack(rounded).graph.initializer}
    assert types["features.conv0.weight"] == onnx.TensorProto.FLOAT
    assert types["transfer.conv.weight.float16"] == onnx.TensorProto.FLOAT16


def test_a_model_that_was_not_packed_stays_as_it_is(center_graph):
    model = onnx.ModelProto()
    model.CopyFrom(center_graph.model)
    unpack(model)
    assert model == center_graph.model
