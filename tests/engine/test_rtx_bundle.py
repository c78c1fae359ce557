"""The real scoring graphs through TensorRT-RTX's parser and builder, which need no GPU."""

import json

import pytest

from cxr_trt.engine.manifest import read_manifest
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BundleError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.score.engine import Engine

pytest.importorskip("tensorrt_rtx", reason="needs pip install 'cxr-trt[tensorrt-rtx-cu13]'")


@pytest.fixture(scope="module", params=["ten-crop", "dense"])
def bundle(request, paper_model, build):
    return build(ScoringGraph.load(paper_model).with_views(request.param), "tensorrt-rtx", max_batch=4)


def test_the_builder_accepts_the_scoring_graph(bundle):
    manifest = read_manifest(bundle)
    assert manifest.backend == "tensorrt-rtx"
    assert manifest.settings["max_batch"] == 4
    assert manifest.settings["activation_bytes"] > 1e6
    assert sorted(manifest.files) == ["engine.plan", "model.onnx"]
    assert (bundle / "engine.plan").stat().st_size > 1e7


def test_without_a_gpu_it_says_why_it_cannot_run(bundle):
    if BACKENDS["tensorrt-rtx"].why_not_run() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(BundleError, match=r"engine\.cxr: no NVIDIA driver was found"):
        Engine(bundle)


@pytest.mark.parametrize("bundle", ["dense"], indirect=True)
def test_it_can_be_rebuilt_for_the_cpu(bundle, build):
    rebuilt = build(ScoringGraph.load(bundle / "model.onnx"), "onnxruntime")
    with Engine(rebuilt) as engine:
        assert engine.spec == read_manifest(bundle).graph.spec


def test_layers_are_shown_of_tensorrt_engines_where_there_is_a_gpu(cli, cheap_bundle, tmp_path):
    assert "is for onnxruntime" in cli("inspect", cheap_bundle, "--layers").stderr
    cli("build-engine", cheap_bundle, "--backend", "tensorrt-rtx", "-o", tmp_path / "a.cxr")
    result = cli("inspect", tmp_path / "a.cxr", "--layers")
    reason = BACKENDS["tensorrt-rtx"].why_not_run()
    assert (result.exit_code == 2 and reason in result.stderr) if reason else json.loads(result.stdout)


OPTIONS = ("--plugin", "--fast-build", "--compatible ampere", "--memory-limit 100", "--version-compatible")


@pytest.mark.parametrize("option", [*OPTIONS, "--single-xrays"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "cuda"])
def test_options_of_tensorrt_are_refused_for_others(cli, cheap_bundle, tmp_path, option, backend):
    result = cli("build-engine", cheap_bundle, "--backend", backend, *option.split(), "-o", tmp_path / "a.cxr")
    assert result.exit_code == 2
    assert f"{option.split()[0]} is for TensorRT, but the engine is for {backend}; leave it out" in result.stderr
    assert not (tmp_path / "a.cxr").exists()


@pytest.mark.parametrize("option", ["--compatible ampere", "--version-compatible"])
def test_what_tensorrt_rtx_would_ignore_is_refused(cli, cheap_bundle, tmp_path, option):
    result = cli("build-engine", cheap_bundle, "--backend", "tensorrt-rtx", *option.split(), "-o", tmp_path / "a.cxr")
    assert result.exit_code == 2
    assert f"{option.split()[0]} is for --backend tensorrt: " in result.stderr


def test_verbose_shows_what_tensorrt_logs(cli, cheap_bundle, tmp_path):
    command = ("build-engine", cheap_bundle, "--backend", "tensorrt-rtx")
    quiet, verbose = cli(*command, "-o", tmp_path / "a.cxr"), cli(*command, "-o", tmp_path / "b.cxr", "--verbose")
    assert quiet.exit_code == verbose.exit_code == 0
    assert "cxr_trt.engine.gpu.tensorrt_runtime: Total Activation Memory: " in verbose.stderr
    assert "DEBUG" not in quiet.stderr
    assert "DEBUG" not in cli(*command, "-o", tmp_path / "c.cxr").stderr
