import re

import pytest

from cxr_trt.engine.choice import CPU_BACKENDS, GPU_BACKENDS, choose_backend
from cxr_trt.engine.cpu.openvino import has_bfloat16
from cxr_trt.engine.gpu import cuda
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.precision.plan import FLOAT32, PrecisionPlan


@pytest.fixture(scope="module")
def graph(center_bundle):
    return ScoringGraph.load(center_bundle / "model.onnx")


def test_auto_takes_what_measures_fastest_here(graph):
    if any(BACKENDS[name].why_not_run() is None for name in GPU_BACKENDS):
        pytest.skip("there is a GPU")
    said = []
    backend = choose_backend("auto", FLOAT32, graph, said.append)
    told = dict(re.fullmatch(r"(.+) takes ([0-9.]+) s per X-ray", part).groups() for part in said[-1].split(", "))
    hint = ["openvino with --precision bf16"] if has_bfloat16() else []
    assert list(told) == [*CPU_BACKENDS, *hint]
    assert 0 < float(told[backend.name]) == min(float(told[name]) for name in CPU_BACKENDS)


@pytest.mark.parametrize("name", BACKENDS)
def test_what_cannot_be_built_here_is_refused_with_the_reason(graph, name):
    if (reason := BACKENDS[name].why_not_build()) is None:
        assert choose_backend(name, FLOAT32, graph, pytest.fail) is BACKENDS[name]
    else:
        with pytest.raises(BackendError, match=r"pip install|NVIDIA") as caught:
            choose_backend(name, FLOAT32, graph, pytest.fail)
        assert str(caught.value) == reason


def test_a_precision_that_a_backend_cannot_run_is_refused_with_those_that_can(graph):
    with pytest.raises(BackendError, match=r"openvino does not run fp16; choose --backend .*onnxruntime"):
        choose_backend("openvino", PrecisionPlan("fp16"), graph, pytest.fail)


def test_auto_takes_a_backend_that_runs_the_precision(graph):
    if any(BACKENDS[name].why_not_run() is None for name in GPU_BACKENDS):
        pytest.skip("there is a GPU")
    assert choose_backend("auto", PrecisionPlan("fp16"), graph, [].append).name == "onnxruntime"


@pytest.mark.parametrize("is_here", [True, False])
def test_where_there_is_a_driver_auto_says_why_the_gpu_is_not_used(graph, is_here, monkeypatch, tmp_path):
    if any(BACKENDS[name].why_not_run() is None for name in GPU_BACKENDS):
        pytest.skip("there is a GPU")
    driver = tmp_path / "version"
    if is_here:
        driver.touch()
    monkeypatch.setattr(cuda, "DRIVER_FILES", (driver,))
    said = []
    choose_backend("auto", PrecisionPlan("fp16"), graph, said.append)
    reasons = [BACKENDS[name].why_not_build() or BACKENDS[name].why_not_run() for name in GPU_BACKENDS]
    sentence = f"building for the CPU, although there is an NVIDIA driver: {'; '.join(reasons)}"
    assert said == [sentence] * is_here
