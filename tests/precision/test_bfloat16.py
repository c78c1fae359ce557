"""bfloat16 on processors that multiply it, and its refusal on others."""

import os
import subprocess
import sys

import numpy as np
import pytest

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.build import BuildRequest, build_bundle
from cxr_trt.engine.cpu.openvino import has_bfloat16
from cxr_trt.engine.registry import BACKENDS
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


def test_it_cannot_be_built_where_there_is_no_bfloat16(demo_model, tmp_path):
    for backend in ("auto", "openvino"):
        options = ("--precision", "bf16", "--backend", backend)
        done = command_without_bfloat16("build-engine", demo_model, "-o", tmp_path / "x.cxr", *options)
        assert done.returncode == 2
        assert "no backend runs bf16 on this processor" in done.stderr, done.stderr
    assert "this processor does not multiply it" in command_without_bfloat16("doctor").stdout
