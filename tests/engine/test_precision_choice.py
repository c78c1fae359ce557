"""`--precision auto`: what it tries, what it takes, and what it writes down."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cxr_trt.engine.build import BuildRequest
from cxr_trt.engine.choice import CPU_BACKENDS
from cxr_trt.engine.cpu.onnxruntime import OnnxRuntimeBackend
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.engine.precision_choice import build_fastest, offered_precisions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError
from cxr_trt.export.scoring_graph import ScoringGraph

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def graph(center_bundle):
    return ScoringGraph.load(center_bundle / "model.onnx")


def test_int8_is_offered_to_calibrated_networks_and_fp16_not_on_cpus():
    backends = [BACKENDS[name] for name in CPU_BACKENDS]
    without, calibrated = (
        offered_precisions(backends, is_calibrated=is_calibrated, is_fixed=False) for is_calibrated in (False, True)
    )
    assert without[0] == "fp32"
    assert set(without) <= {"fp32", "bf16"}
    assert calibrated == [*without, "int8"]


def test_a_gpu_is_offered_all_its_precisions_and_a_network_of_fixed_types_those_that_change_no_type():
    backends = [BACKENDS["tensorrt-rtx"]]
    assert offered_precisions(backends, is_calibrated=False, is_fixed=False) == ["fp32", "tf32", "fp16"]
    assert offered_precisions(backends, is_calibrated=True, is_fixed=False) == ["fp32", "tf32", "fp16", "int8"]
    assert offered_precisions(backends, is_calibrated=True, is_fixed=True) == ["fp32", "tf32"]


def test_the_fastest_is_taken_and_all_are_in_the_manifest_but_not_in_the_fingerprint(graph, tmp_path):
    requests = [BuildRequest(graph, BACKENDS[name]) for name in CPU_BACKENDS]
    said = []
    chosen, manifest = build_fastest(requests, tmp_path / "chosen.cxr", said.append)
    assert read_manifest(tmp_path / "chosen.cxr") == manifest
    labels = [f"fp32, {name}" for name in CPU_BACKENDS]
    measured = manifest.settings["tuning"]["precision"]
    assert list(measured) == labels
    seconds = {label: tried["seconds_per_xray"] for label, tried in measured.items()}
    others = min(value for label, value in seconds.items() if label != labels[0])
    assert chosen.backend.name == CPU_BACKENDS[others <= 0.95 * seconds[labels[0]]]
    assert all(tried["largest_difference"] <= 1e-4 for tried in measured.values())
    assert [sentence.split(":")[0] for sentence in said] == labels
    without = {name: value for name, value in manifest.settings.items() if name != "tuning"}
    assert replace(manifest, settings=without).fingerprint == manifest.fingerprint


def test_what_cannot_run_here_cannot_be_timed(cli, cheap_bundle, tmp_path):
    backend = BACKENDS["tensorrt-rtx"]
    if backend.why_not_build() or not backend.why_not_run():
        pytest.skip("TensorRT-RTX builds and runs here, or does not build")
    done = cli(
        "build-engine", cheap_bundle, "-o", tmp_path / "a.cxr", "--backend", "tensorrt-rtx", "--precision", "auto"
    )
    assert done.exit_code == 2
    assert "--precision auto times engines, which cannot run here: " in done.stderr
    assert not (tmp_path / "a.cxr").exists()


def test_auto_takes_part_in_a_build_from_the_command_line(cli, center_bundle, tmp_path):
    done = cli("build-engine", center_bundle, "-o", tmp_path / "a.cxr", "--precision", "auto", "--no-tune")
    assert done.exit_code == 0, done.stderr
    settings = json.loads((tmp_path / "a.cxr" / "manifest.json").read_text())["settings"]
    assert {f"fp32, {name}" for name in CPU_BACKENDS} <= set(settings["tuning"]["precision"])
    assert done.stderr.count("s per X-ray, probabilities differ from float32 by at most") >= len(CPU_BACKENDS)


class WithAnotherBias(OnnxRuntimeBackend):
    """Builds from a graph with another bias in the transfer layer."""

    name = "wrong"

    def build(self, graph, folder, options):
        copy = onnx.ModelProto()
        copy.CopyFrom(graph)
        bias = next(tensor for tensor in copy.graph.initializer if tensor.name == "transfer.conv.bias")
        bias.CopyFrom(numpy_helper.from_array(np.full(list(bias.dims), 9, np.float32), bias.name))
        return super().build(copy, folder, options)


def test_an_engine_that_disagrees_is_left_out_with_the_reason(graph, tmp_path):
    requests = [BuildRequest(graph, WithAnotherBias()), BuildRequest(graph, BACKENDS["onnxruntime"])]
    said = []
    chosen, manifest = build_fastest(requests, tmp_path / "a.cxr", said.append)
    assert chosen.backend.name == "onnxruntime"
    assert list(manifest.settings["tuning"]["precision"]) == ["fp32, onnxruntime"]
    assert said[0].startswith("fp32, wrong is left out: nothing was written: the engine's probabilities differ")
    with pytest.raises(BackendError, match="fp32, wrong: nothing was written"):
        build_fastest(requests[:1], tmp_path / "b.cxr", said.append)
    assert not (tmp_path / "b.cxr").exists()


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_a_float32_engine_says_which_other_precisions_run_here(cli, center_bundle, tmp_path, name):
    done = cli("build-engine", center_bundle, "-o", tmp_path / "a.cxr", "--backend", name, "--no-tune")
    assert done.exit_code == 0, done.stderr
    others = {"openvino": [p for p in BACKENDS["openvino"].precisions if p != "fp32"], "onnxruntime": ["int8"]}[name]
    assert f"on this processor {name} also runs {', '.join(others)}: see --precision" in done.stderr


def test_an_engine_in_another_precision_does_not(cli, center_bundle, tmp_path):
    options = ("--backend", "onnxruntime", "--no-tune", "--precision", "fp16")
    done = cli("build-engine", center_bundle, "-o", tmp_path / "a.cxr", *options)
    assert done.exit_code == 0, done.stderr
    assert "also runs" not in done.stderr
