import json

import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.openvino import has_float16
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.precision.plan import PrecisionPlan


def test_engine_and_files_are_timed(cli, cheap_bundle, radiographs, tmp_path):
    (tmp_path / "xrays").mkdir()
    for name in ("RG1_UNCR.dcm", "RG1_J2KR.dcm"):
        (tmp_path / "xrays" / name).symlink_to(radiographs / name)
    (tmp_path / "xrays" / "broken.png").write_bytes(b"no image")
    done = cli(
        "benchmark", cheap_bundle, tmp_path / "xrays", "--runs", 5, "--workers", 1, "--json", tmp_path / "b.json"
    )
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "b.json").read_text())
    assert (result["files"], result["files_with_errors"], result["workers"]) == (3, 1, 1)
    single = result["seconds_of_one_xray"]
    assert 0 < single["min"] <= single["median"] <= single["p95"] <= single["p99"] <= single["max"]
    assert result["files_per_second_to_the_table"] > 0
    assert result["engine"].count("-") == 1
    assert "gpu" not in done.stdout.lower()  # not a word of a GPU where the engine is not one's
    assert "files per second to the table" in done.stdout


def test_an_engine_is_compared_with_what_the_processors_reach(cli, center_bundle, tmp_path):
    done = cli("benchmark", center_bundle, "--runs", 3, "--json", tmp_path / "b.json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "b.json").read_text())
    reached = result["reached_here"]["multiplications_per_second"]
    assert result["times_the_limit"] == result["seconds_per_xray"]["median"] / result["limit_not_measured"]
    assert result["limit_not_measured"] >= 5e8 / reached  # a DenseNet-121 multiplies more often than that
    assert "times the limit" in done.stdout


def test_a_float16_engine_is_compared_too(cli, center_graph, tmp_path):
    """Also where the processor multiplies in float32 instead; then the output says so."""
    bundle, backend = tmp_path / "half.cxr", BACKENDS["onnxruntime"]
    build_bundle(BuildRequest(center_graph, backend, PrecisionPlan("fp16"), BuildOptions(max_batch=1)), bundle)
    done = cli("benchmark", bundle, "--runs", 2, "--json", tmp_path / "b.json")
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "b.json").read_text())
    assert result["precision"] == "fp16"
    assert result["reached_here"]["multiplied_in"] == ("float16" if has_float16() else "float32")
    assert result["times_the_limit"] == result["seconds_per_xray"]["median"] / result["limit_not_measured"]


def test_without_files_the_engine_alone_is_timed(cli, cheap_bundle):
    done = cli("benchmark", cheap_bundle, "--runs", 1)
    assert done.exit_code == 0, done.output
    assert "seconds per xray" in done.stdout
    assert "files" not in done.stdout


@pytest.mark.parametrize(("backend", "kind"), [("openvino", "Convolution"), ("onnxruntime", "Conv")])
def test_what_each_layer_takes(cli, center_graph, build, backend, kind, tmp_path):
    bundle = build(center_graph, backend)
    done = cli("benchmark", bundle, "--runs", 2, "--layers", "--json", tmp_path / "b.json")
    assert done.exit_code == 0, done.output
    layers = json.loads((tmp_path / "b.json").read_text())["layers"]
    convolutions = [layer for layer in layers if layer["kind"].startswith(kind)]
    assert 118 <= len(convolutions) <= 200  # a DenseNet-121 has 120, of which some are divided or joined
    assert any("denseblock3.denselayer7.conv2" in layer["name"] for layer in layers)
    assert all(layer["seconds"] >= 0 for layer in layers)
    assert sum(layer["seconds"] for layer in convolutions) > 0.3 * sum(layer["seconds"] for layer in layers)
    assert "kind of layer" in done.stdout
    assert kind in done.stdout


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_each_layer_takes_where_crops_are_scored_in_turn(cli, small_graph, build, backend, tmp_path):
    """The layers inside the loop over the crops are shown, and not the loop."""
    done = cli("benchmark", build(small_graph, backend), "--runs", 1, "--layers", "--json", tmp_path / "b.json")
    assert done.exit_code == 0, done.output
    layers = json.loads((tmp_path / "b.json").read_text())["layers"]
    inside = [layer for layer in layers if "denseblock4.denselayer16.conv2" in layer["name"]]
    assert inside
    assert not [layer for layer in layers if layer["kind"].startswith(("TensorIterator", "Scan"))]


def test_files_that_cannot_be_read_are_no_measurement(cli, cheap_bundle, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = cli("benchmark", cheap_bundle, tmp_path, "--runs", 1)
    assert done.exit_code == 2
    assert "none of the 1 file could be read" in done.output
