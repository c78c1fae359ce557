"""ONNX Runtime's CUDA provider: all but the provider itself, in whose place the same code has the CPU's."""

import numpy as np
import onnxruntime
import pytest
from cheap_engine import cheap_graph

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.choice import GPU_BACKENDS
from cxr_trt.engine.gpu import onnxruntime_cuda
from cxr_trt.engine.gpu.onnxruntime_cuda import CudaBackend
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import BackendError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.precision.planning import plan_float16
from cxr_trt.progress import ignore_progress
from cxr_trt.score.engine import Engine

HAS_PROVIDER = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


class OnTheProcessors(CudaBackend):
    provider = "CPUExecutionProvider"

    def why_not_run(self):
        return self.why_not_build()

    def _provider_options(self, settings):
        return {}


def plan(precision, graph):
    if precision == "fp16":
        return plan_float16(graph, check_pictures(256)[:1], ignore_progress)
    return PrecisionPlan(precision)


@pytest.fixture(scope="module")
def pictures():
    return [*check_pictures(256)[:, 0], np.zeros((256, 256), np.uint8)]


@pytest.fixture(scope="module")
def expected(small_graph, pictures):
    session = onnxruntime.InferenceSession(small_graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "class_maps"], {"images": np.stack(pictures)[:, None]})


@pytest.mark.parametrize(("precision", "difference"), [("fp32", 1e-6), ("tf32", 1e-6), ("fp16", 5e-3)])
def test_batches_in_flight_give_the_graphs_scores(small_graph, tmp_path, pictures, expected, precision, difference):
    backend = OnTheProcessors()
    options = BuildOptions(2, tf32=precision == "tf32")
    settings = backend.build(plan(precision, small_graph).engine_graph(small_graph, backend), tmp_path, options)
    assert settings == {"max_batch": 2, "tf32": precision == "tf32"}
    runner = backend.open(tmp_path, small_graph.spec, settings)
    assert (runner.max_batch, runner.in_flight, runner.has_class_maps) == (2, 2, True)
    first, second = runner.submit(pictures[:2], True), runner.submit(pictures[2:], False)
    late, early = second(), first()
    runner.close()
    np.testing.assert_allclose(early.probabilities, expected[0][:2], rtol=0, atol=difference)
    np.testing.assert_allclose(late.probabilities, expected[0][2:], rtol=0, atol=difference)
    np.testing.assert_allclose(early.class_maps, expected[1][:2], rtol=0, atol=difference * np.abs(expected[1]).max())
    assert late.class_maps is None


def test_a_bundle_is_built_checked_and_opened(build, monkeypatch):
    monkeypatch.setitem(BACKENDS, "cuda", OnTheProcessors())
    graph = cheap_graph()
    pictures = check_pictures(graph.spec.image_size)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"images": pictures})
    with Engine(build(graph, "cuda", max_batch=2)) as engine:
        assert engine.manifest.settings["parity"]["largest"] < 1e-5
        np.testing.assert_allclose(engine.run(pictures).probabilities, expected, rtol=0, atol=1e-6)


def test_what_fails_in_the_session_fails_when_it_is_collected(small_graph, tmp_path):
    backend = OnTheProcessors()
    runner = backend.open(tmp_path, small_graph.spec, backend.build(small_graph.model, tmp_path, BuildOptions(1)))
    pending = runner.submit([np.zeros((8, 8), np.uint8)], False)
    with pytest.raises(BackendError, match=r"ONNX Runtime failed \(.*; build with a lower --max-batch"):
        pending()
    runner.close()


def test_tf32_is_asked_for_by_name():
    assert CudaBackend()._provider_options({"tf32": True}) == {"use_tf32": "1"}
    assert CudaBackend()._provider_options({"tf32": False}) == {"use_tf32": "0"}


@pytest.mark.skipif(HAS_PROVIDER, reason="onnxruntime-gpu is installed")
def test_without_the_provider_one_sentence_says_what_to_install(cli, cheap_bundle, tmp_path, monkeypatch):
    result = cli("build-engine", cheap_bundle, "--backend", "cuda", "-o", tmp_path / "a.cxr")
    assert result.exit_code == 2
    assert "CUDA provider is not installed: run pip install 'cxr-trt[cuda-cu13]'" in result.stderr
    monkeypatch.setattr(onnxruntime_cuda, "installed_packages", lambda: {"onnxruntime-gpu": "1.31.1"})
    assert CudaBackend().why_not_run() == (
        "onnxruntime, which has no CUDA provider, lies over onnxruntime-gpu: "
        "run pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1"
    )
    monkeypatch.setattr(onnxruntime_cuda, "is_jetson", lambda: True)
    assert CudaBackend().why_not_run().endswith("use --backend tensorrt")


@pytest.mark.skipif(HAS_PROVIDER, reason="onnxruntime-gpu is installed")
def test_a_silent_fall_back_to_the_cpu_is_an_error(small_graph, tmp_path):
    backend = CudaBackend()
    settings = OnTheProcessors().build(small_graph.model, tmp_path, BuildOptions(1))
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="cannot use the GPU, mostly because its libraries"),
    ):
        backend._session(tmp_path, settings, onnxruntime.SessionOptions())


def test_it_comes_after_tensorrt():
    assert GPU_BACKENDS == ("tensorrt", "tensorrt-rtx", "cuda")


@pytest.mark.gpu
def test_on_a_gpu_the_scores_are_the_graphs(build, small_graph, pictures, expected):
    if reason := CudaBackend().why_not_run():
        pytest.skip(reason)
    with Engine(build(small_graph, "cuda", max_batch=2)) as engine:
        np.testing.assert_allclose(engine.run(np.stack(pictures)).probabilities, expected[0], rtol=0, atol=1e-4)
