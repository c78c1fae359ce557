"""The model repository for Triton: its schema is Triton's own, its dimensions are the graph's. No server runs here."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from cheap_engine import cheap_graph
from google.protobuf import text_format

from cxr_trt.engine.manifest import GRAPH_FILE, read_manifest
from cxr_trt.engine.triton import check_configuration, configuration
from cxr_trt.errors import GraphError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.score.engine import Engine


@pytest.fixture(scope="module")
def bundle(build):
    return build(cheap_graph(), "onnxruntime", max_batch=2)


def parsed(text):
    """The configuration as Triton reads it."""
    service = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs pip install 'tritonclient[grpc]'")
    return text_format.Parse(text, service.ModelConfig())


def test_the_configuration_follows_tritons_schema(bundle, cli, tmp_path):
    assert cli("triton", bundle, "-o", tmp_path, "--name", "chest").exit_code == 0
    config = parsed((tmp_path / "chest" / "config.pbtxt").read_text())
    assert (config.name, config.backend, config.max_batch_size) == ("chest", "onnxruntime", 2)
    assert (tmp_path / "chest" / "1" / config.default_model_filename).is_file()
    (image,) = config.input
    with Engine(bundle) as engine:
        assert (image.name, list(image.dims)) == ("images", [1, *engine.spec.image_size])
        assert [output.name for output in config.output] == ["probabilities", "class_maps"]
        assert list(config.output[0].dims) == [len(engine.spec.findings)]
        assert config.parameters["cxr_trt.fingerprint"].string_value == engine.fingerprint


def test_the_served_model_gives_the_engines_scores_and_needs_no_local_functions(build, small_graph, cli, tmp_path):
    bundle = build(small_graph, "onnxruntime", max_batch=2)
    assert cli("triton", bundle, "-o", tmp_path, "--name", "chest").exit_code == 0
    path = tmp_path / "chest" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with Engine(bundle) as engine:
        images = np.random.default_rng(0).integers(0, 256, (2, 1, *engine.spec.image_size), np.uint8)
        expected = engine.run(images).probabilities
    np.testing.assert_allclose(session.run(["probabilities"], {"images": images})[0], expected, rtol=0, atol=1e-5)
    assert onnx.load(bundle / "engine.onnx").functions
    assert not onnx.load(path).functions


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dims: [14]", "dims: [15]"),
        ('name: "probabilities"', 'name: "scores"'),
        ("TYPE_UINT8", "TYPE_FP32"),
        ("input {", "output {"),
    ],
)
def test_a_configuration_that_differs_from_the_graph_is_refused(bundle, old, new):
    manifest, graph = read_manifest(bundle), ScoringGraph.load(bundle / GRAPH_FILE)
    text = configuration(manifest, graph, "chest")
    check_configuration(text, manifest, graph)
    assert text.count(old) == 1
    parsed(text.replace(old, new))
    with pytest.raises(GraphError, match="the configuration has the tensors"):
        check_configuration(text.replace(old, new), manifest, graph)


def test_a_configuration_that_differs_from_the_specification_is_refused(bundle):
    manifest, graph = read_manifest(bundle), ScoringGraph.load(bundle / GRAPH_FILE)
    other = replace(manifest, graph=replace(manifest.graph, spec=replace(manifest.graph.spec, findings=("Mass",))))
    with pytest.raises(GraphError, match="not those of the specification"):
        check_configuration(configuration(manifest, graph, "chest"), other, graph)


def test_an_engine_for_gpus_is_served_on_gpus(bundle):
    manifest = replace(read_manifest(bundle), backend="tensorrt")
    config = parsed(configuration(manifest, ScoringGraph.load(bundle / GRAPH_FILE), "chest"))
    assert (config.backend, config.default_model_filename) == ("tensorrt", "model.plan")
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU


def test_mistakes_are_one_sentence(bundle, cli, tmp_path, build):
    (tmp_path / "models" / "chest" / "1").mkdir(parents=True)
    exists = cli("triton", bundle, "-o", tmp_path / "models", "--name", "chest")
    assert (exists.exit_code, "cannot be written (File exists); choose another" in exists.stderr) == (2, True)
    name = cli("triton", bundle, "-o", tmp_path, "--name", "../chest")
    assert (name.exit_code, "take letters, digits" in name.stderr) == (2, True)
    openvino = cli("triton", build(cheap_graph()), "-o", tmp_path)
    assert "does not run engines of openvino as they were checked here" in openvino.stderr
    assert not list(tmp_path.glob("*.pbtxt"))
