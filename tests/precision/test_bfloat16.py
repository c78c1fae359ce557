"""bfloat16 and float16 on processors that compute in them, and their refusal on others."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu import openvino
from cxr_trt.engine.cpu.openvino import has_bfloat16, has_float16
from cxr_trt.engine.precision_choice import offered_precisions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError, BundleError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.score.engine import Engine

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply bfloat16")
WITHOUT_BFLOAT16 = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.fixture(scope="module")
def bundle(center_graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("bfloat16") / "b.cxr"
    options = BuildOptions(max_batch=2)
    build_bundle(BuildRequest(center_graph, BACKENDS["openvino"], PrecisionPlan("bf16"), options), path)
    return path


def command_without_bfloat16(*arguments):
    """Run cxr-trt as on a processor that has no more than AVX2."""
    command = [sys.executable, "-m", "cxr_trt", *map(str, arguments)]
    return subprocess.run(command, env=WITHOUT_BFLOAT16, capture_output=True, text=True)


@needs_bfloat16
def test_scores_move_a_little_and_not_more(bundle, center_bundle):
    pictures = check_pictures(512)
    with Engine(bundle) as rounded, Engine(center_bundle) as exact:
        found, expected = (engine.run(pictures).probabilities for engine in (rounded, exact))
    assert 1e-6 < np.abs(found - expected).max() < 0.02


@needs_bfloat16
def test_the_bundle_is_refused_where_there_is_no_bfloat16(bundle, radiographs, tmp_path):
    table = tmp_path / "scores.csv"
    done = command_without_bfloat16("score", radiographs / "RG1_UNCR.dcm", "-e", bundle, "-o", table)
    assert done.returncode == 2
    assert "computes in bfloat16, which this processor does not have" in done.stderr
    assert not table.exists()


def test_it_cannot_be_built_where_there_is_no_bfloat16(paper_model, tmp_path):
    for backend in ("auto", "openvino"):
        options = ("--precision", "bf16", "--backend", backend)
        done = command_without_bfloat16("build-engine", paper_model, "-o", tmp_path / "x.cxr", *options)
        assert done.returncode == 2
        assert "no backend runs bf16 on this processor" in done.stderr, done.stderr
    assert "this processor does not multiply it" in command_without_bfloat16("doctor").stdout


@pytest.fixture
def with_float16(monkeypatch):
    """As on a processor that computes in float16. OpenVINO takes the setting on any other too, and does what it can."""
    monkeypatch.setattr(openvino, "has_float16", lambda: True)


def test_float16_is_asked_of_openvino_and_not_written_into_the_graph(with_float16, center_graph, tmp_path, monkeypatch):
    backend, bundle = BACKENDS["openvino"], tmp_path / "half.cxr"
    build_bundle(BuildRequest(center_graph, backend, PrecisionPlan("fp16"), BuildOptions(max_batch=2)), bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["precision"] == "fp16"
    assert manifest["settings"]["float16"] is True
    assert b'element_type="f16"' not in (bundle / "openvino.xml").read_bytes()
    hints = []
    compiled = openvino.compiled_once
    monkeypatch.setattr(openvino, "compiled_once", lambda *given: hints.append(given[1]) or compiled(*given))
    with Engine(bundle) as engine:
        engine.run(check_pictures(512))
    assert {own["INFERENCE_PRECISION_HINT"] for own in hints} == {"f16"}
    monkeypatch.setattr(openvino, "has_float16", lambda: False)
    with pytest.raises(BundleError, match="computes in float16, which this processor does not have"):
        Engine(bundle)


def test_float16_is_refused_where_a_layer_must_stay_float32(with_float16, center_graph, tmp_path):
    plan = replace(PrecisionPlan("fp16"), float32=("a layer",))
    request = BuildRequest(center_graph, BACKENDS["openvino"], plan, BuildOptions(max_batch=1))
    with pytest.raises(BackendError, match="must stay float32, which openvino cannot do within fp16"):
        build_bundle(request, tmp_path / "half.cxr")


def test_float16_is_offered_where_the_processor_computes_in_it(with_float16):
    backends = [BACKENDS["openvino"], BACKENDS["onnxruntime"]]
    assert "fp16" in offered_precisions(backends, is_calibrated=False, is_fixed=False)
    assert "fp16" not in offered_precisions(backends, is_calibrated=False, is_fixed=True)


@pytest.mark.skipif(has_float16(), reason="this processor computes in float16")
def test_float16_is_not_offered_where_the_processor_does_not(paper_model, tmp_path):
    backends = [BACKENDS["openvino"], BACKENDS["onnxruntime"]]
    assert "fp16" not in offered_precisions(backends, is_calibrated=False, is_fixed=False)
    done = command_without_bfloat16(
        "build-engine", paper_model, "-o", tmp_path / "x.cxr", "--precision", "fp16", "--backend", "openvino"
    )
    assert done.returncode == 2
    assert "fp16" in done.stderr
