"""Files that are not scoring graphs are refused in one sentence."""

import hashlib
import json

import onnx
import pytest
from onnx import TensorProto, helper

from cxr_trt.errors import GraphError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.spec import Specification


@pytest.fixture
def demo(paper_model):
    return onnx.load(paper_model)


def refusal(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError) as caught:
        ScoringGraph.load(path)
    assert str(path) in str(caught.value)
    assert "cxr-trt export" in str(caught.value)
    return str(caught.value)


def property_of(model, key):
    return next(prop for prop in model.metadata_props if prop.key == f"cxr_trt.{key}")


def test_the_shipped_model_is_read(paper_model):
    graph = ScoringGraph.load(paper_model)
    assert graph.spec == Specification()
    assert graph.info.weights == "demonstration"
    assert len(graph.model.functions) == 1


@pytest.mark.parametrize("content", [b"", b"not protobuf at all", b"\x08\x09"])
def test_rubbish(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(GraphError, match=r"a\.onnx: not a"):
        ScoringGraph.load(tmp_path / "a.onnx")


def test_truncated(paper_model, tmp_path):
    (tmp_path / "a.onnx").write_bytes(paper_model.read_bytes()[:-1000])
    with pytest.raises(GraphError, match="not a"):
        ScoringGraph.load(tmp_path / "a.onnx")


def test_another_onnx_model(tmp_path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [output]))
    assert "not a scoring graph" in refusal(model, tmp_path)


def test_a_changed_specification(demo, tmp_path):
    text = property_of(demo, "specification")
    text.value = text.value.replace("0.485", "0.5")
    assert "changed after the export" in refusal(demo, tmp_path)


def test_a_specification_of_another_version(demo, tmp_path):
    text = property_of(demo, "specification")
    text.value = json.dumps({**json.loads(text.value), "gamma": 2.2})
    assert "gamma" in refusal(demo, tmp_path)


@pytest.mark.parametrize(
    ("part", "other", "reason"),
    [("luma", "green", "its preprocessing"), ("Mass", "Nodule", "the findings 'Nodule' and 'Nodule'")],
)
def test_other_preprocessing_or_findings_that_cannot_be(demo, tmp_path, part, other, reason):
    """Consistent in itself, but not what this version would do to an image, or could call a column."""
    text, sha256 = property_of(demo, "specification"), property_of(demo, "specification_sha256")
    text.value = text.value.replace(part, other)
    sha256.value = hashlib.sha256(text.value.encode()).hexdigest()
    assert reason in refusal(demo, tmp_path)


def test_another_input(demo, tmp_path):
    demo.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 256
    assert "inputs and outputs" in refusal(demo, tmp_path)


def test_weights_in_other_files(demo, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(demo, path, save_as_external_data=True, location="weights.bin")
    with pytest.raises(GraphError, match="in other files"):
        ScoringGraph.load(path)


@pytest.mark.parametrize("place", ["initializer", "attribute", "function", "sparse", "without saying so"])
def test_a_path_to_another_file_is_found_wherever_it_hides(demo, tmp_path, place):
    tensor = TensorProto(name="hidden", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    constant = helper.make_node("Constant", [], ["hidden"], value=tensor)
    if place == "without saying so":
        tensor.ClearField("data_location")
    if place in ("initializer", "without saying so"):
        demo.graph.initializer.append(tensor)
    elif place == "attribute":
        demo.graph.node.insert(0, constant)
    elif place == "function":
        demo.functions[0].node.insert(0, constant)
    else:
        demo.graph.sparse_initializer.add().values.CopyFrom(tensor)
    path = tmp_path / "model.onnx"
    path.write_bytes(demo.SerializeToString())
    with pytest.raises(GraphError, match="in other files"):
        ScoringGraph.load(path)


def test_a_file_larger_than_a_protocol_buffer_is_not_read(tmp_path):
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GraphError, match=r"1024\.0 GiB"):
        ScoringGraph.load(tmp_path / "a.onnx")


@pytest.mark.parametrize(("key", "value"), [("image_size", 10**9), ("crop_size", 600), ("alpha", "0.7"), ("mean", [1])])
def test_sizes_that_would_fill_the_memory_are_refused(demo, tmp_path, key, value):
    text, sha256 = property_of(demo, "specification"), property_of(demo, "specification_sha256")
    text.value = json.dumps({**json.loads(text.value), key: value})
    sha256.value = hashlib.sha256(text.value.encode()).hexdigest()
    sentence = refusal(demo, tmp_path)
    assert "sizes, names or statistics" in sentence or "do not fit into" in sentence


def test_metadata_that_are_not_utf8_are_refused(demo, tmp_path):
    content = demo.SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content.replace(b"cxr_trt.weights", b"cxr_trt.\xff\xfe\xffghts"))
    with pytest.raises(GraphError, match="not a scoring graph"):
        ScoringGraph.load(tmp_path / "a.onnx")
