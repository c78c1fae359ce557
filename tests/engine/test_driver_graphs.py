"""Graphs through libcuda, against a library with its functions that keeps account. With PyCUDA: tests marked `gpu`."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cxr_trt.engine.gpu import driver_graphs
from cxr_trt.errors import BackendError

SOURCE = Path(__file__).parents[1] / "support" / "simulated_driver.cpp"
STREAM = 0x1234567890
CAPTURE = ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so"
    subprocess.run(["g++", "-std=c++17", "-shared", "-fPIC", "-Wall", SOURCE, "-o", library], check=True)
    return library


@pytest.fixture
def calls(compiled, tmp_path, monkeypatch):
    """What the library was called for; each test has one of its own."""
    copy = shutil.copy(compiled, tmp_path / "libcuda.so")
    library = ctypes.CDLL(str(copy))
    library.calls.restype = ctypes.c_char_p
    monkeypatch.setattr(driver_graphs, "_library", lambda: library)
    return lambda: library.calls().decode().split()


def test_a_graph_is_captured_launched_and_destroyed(calls):
    captured = []
    graph = driver_graphs.capture(STREAM, lambda: captured.append(calls()))
    assert captured == [CAPTURE[:1]]
    assert calls() == CAPTURE
    stream = SimpleNamespace(handle=STREAM)
    graph.launch(stream)
    graph.launch(stream)
    graph.close()
    assert calls() == [*CAPTURE, "cuGraphLaunch", "cuGraphLaunch", "cuGraphExecDestroy"]
    with pytest.raises(BackendError, match="CUDA failed: cuGraphLaunch: error 400"):
        graph.launch(stream)


def test_work_that_fails_leaves_no_graph_behind(calls):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver_graphs.capture(STREAM, fail)
    assert calls() == ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("failing", CAPTURE)
def test_a_call_that_fails_is_named_with_its_reason(calls, monkeypatch, failing):
    monkeypatch.setenv("FAIL", failing)
    with pytest.raises(BackendError, match=f"CUDA failed: {failing}: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        driver_graphs.capture(STREAM, lambda: None)
    expected = CAPTURE if failing == "cuGraphInstantiateWithFlags" else CAPTURE[: CAPTURE.index(failing) + 1]
    assert calls() == expected
