"""The graph that `build-engine --trtexec` writes, and the command beside it. trtexec itself is not installed here."""

import shlex

import numpy as np
import onnx
import onnxruntime
import pytest
from simulated_backend import SimulatedBackend

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend
from cxr_trt.engine.gpu.tensorrt_config import COMPATIBILITY_LEVELS
from cxr_trt.engine.gpu.trtexec import COMPATIBILITY_LEVELS as TRTEXEC_LEVELS
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph

BACKEND = TensorRTBackend("tensorrt")
SHAPES = ["--minShapes=images:1x1x256x256", "--optShapes=images:8x1x256x256", "--maxShapes=images:8x1x256x256"]
SINGLE = [f"--{name}Shapes=images:1x1x256x256" for name in ("min", "opt", "max")]


def command(graph, tmp_path, **options):
    text = BACKEND.write_for_trtexec(graph.model, tmp_path / "graph.onnx", BuildOptions(8, **options))
    return shlex.split(text)


def test_the_command_names_the_graph_the_sizes_and_the_types(small_graph, tmp_path):
    found = command(small_graph, tmp_path)
    files = [f"--onnx={tmp_path / 'graph.onnx'}", f"--saveEngine={tmp_path / 'graph.plan'}"]
    assert found == ["trtexec", *files, "--stronglyTyped", *SHAPES, "--profilingVerbosity=detailed", "--noTF32"]


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"fast_build": True}, "--builderOptimizationLevel=0"),
        ({"memory_limit": 256 << 20}, "--memPoolSize=workspace:256"),
        ({"compatible": "ampere"}, "--hardwareCompatibilityLevel=ampere+"),
        ({"compatible": "same-capability"}, "--hardwareCompatibilityLevel=sameComputeCapability"),
        ({"version_compatible": True}, "--versionCompatible"),
    ],
)
def test_options_are_passed_on(small_graph, tmp_path, options, added):
    assert command(small_graph, tmp_path, **options) == [*command(small_graph, tmp_path), added]
    assert set(TRTEXEC_LEVELS) == set(COMPATIBILITY_LEVELS)


def test_tf32_is_trtexecs_default(small_graph, tmp_path):
    assert command(small_graph, tmp_path) == [*command(small_graph, tmp_path, tf32=True), "--noTF32"]


def test_single_xrays_are_a_second_profile(small_graph, tmp_path):
    found = command(small_graph, tmp_path, single_xrays=True)
    start = found.index("--profile=0")
    assert found[start : start + 8] == ["--profile=0", *SHAPES, "--profile=1", *SINGLE]


def test_the_graph_needs_no_plugin_unless_the_command_names_one(small_graph, tmp_path, monkeypatch):
    command(small_graph, tmp_path)
    written = onnx.load(tmp_path / "graph.onnx")
    assert not written.functions
    pictures = check_pictures(small_graph.spec.image_size)[:1]
    expected, found = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["probabilities"], {"images": pictures}
        )[0]
        for model in (small_graph.model, written)
    )
    np.testing.assert_array_equal(found, expected)

    (tmp_path / "plugin.so").write_bytes(b"a library")
    monkeypatch.setenv("CXR_TRT_PLUGIN", str(tmp_path / "plugin.so"))
    assert command(small_graph, tmp_path, plugin=True)[-1] == f"--dynamicPlugins={tmp_path / 'plugin.so'}"
    assert "MaxMinPool" in {node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node}


def test_build_engine_writes_both_for_the_precision_that_it_built(cli, cheap_bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKENDS, "tensorrt", SimulatedBackend({"fp32": 0.1, "tf32": 0.1}))
    file = tmp_path / "graph.onnx"
    build = ("build-engine", cheap_bundle, "--backend", "tensorrt", "--trtexec", file)
    done = cli(*build, "-o", tmp_path / "a.cxr", "--precision", "tf32")
    assert done.exit_code == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "trtexec" in line]
    assert f"trtexec --onnx={file} " in said
    assert "--noTF32" not in said
    graph = ScoringGraph.load(cheap_bundle / "model.onnx")
    assert [node.op_type for node in onnx.load(file).graph.node] == [node.op_type for node in graph.model.graph.node]
    refused = cli(*build, "-o", tmp_path / "b.cxr")
    assert refused.exit_code == 2
    assert f"{file} exists" in refused.stderr
    other = cli("build-engine", cheap_bundle, "--backend", "openvino", "--trtexec", tmp_path / "c.onnx")
    assert "--trtexec is for TensorRT, but the engine is for openvino" in other.stderr
