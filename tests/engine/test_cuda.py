"""The CUDA adapter: what it says without a GPU, that it names real parts of cuda-core, and copies on a GPU."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from cxr_trt.engine.gpu import cuda, cuda_core, py_cuda
from cxr_trt.errors import BackendError


@pytest.fixture
def fresh_gpu() -> Iterator[None]:
    cuda.gpus.cache_clear()
    yield
    cuda.gpus.cache_clear()


def attributes() -> list[ast.Attribute]:
    """Every attribute that the adapter for cuda-core uses."""
    return [node for node in ast.walk(ast.parse(inspect.getsource(cuda_core))) if isinstance(node, ast.Attribute)]


def test_one_sentence_says_why_there_is_no_gpu() -> None:
    reason = cuda.why_no_gpu()
    if reason is None:
        pytest.skip("there is a GPU")
    assert "\n" not in reason
    assert reason in (cuda_core.NO_DRIVER, cuda.NO_GPU) or reason.startswith("cuda-core cannot be imported")


@pytest.mark.usefixtures("fresh_gpu")
def test_without_cuda_core_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert "pip install 'cxr-trt[tensorrt-cu" in (cuda.why_no_gpu() or "")


@pytest.mark.usefixtures("fresh_gpu")
def test_pycuda_is_used_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    used = []
    monkeypatch.setattr(cuda_core, "gpus", lambda: used.append("cuda-core"))
    monkeypatch.setattr(py_cuda, "gpus", lambda: used.append("pycuda"))
    monkeypatch.setattr(cuda, "_is_installed", lambda module: True)
    for asked in ("", "cuda-core", "pycuda"):
        monkeypatch.setenv("CXR_TRT_CUDA", asked)
        cuda.gpus.cache_clear()
        cuda.gpus()
    assert used == ["cuda-core", "cuda-core", "pycuda"]
    monkeypatch.setenv("CXR_TRT_CUDA", "")
    monkeypatch.setattr(cuda, "_is_installed", lambda module: module == "pycuda.driver")
    cuda.gpus.cache_clear()
    cuda.gpus()
    assert used[-1] == "pycuda"


@pytest.mark.usefixtures("fresh_gpu")
@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("opencl", "CXR_TRT_CUDA is 'opencl'; it must be cuda-core or pycuda"),
        ("pycuda", "pip install 'cxr-trt[pycuda]'"),
    ],
)
def test_a_missing_library_is_one_sentence(asked: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setenv("CXR_TRT_CUDA", asked)
    assert sentence in (cuda.why_no_gpu() or "")


def test_a_status_other_than_success_is_an_error_that_names_it() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert cuda_core.check(driver, (driver.CUresult.CUDA_SUCCESS,)) == ()
    assert cuda_core.check(driver, (driver.CUresult.CUDA_SUCCESS, 3)) == 3
    assert cuda_core.check(driver, (driver.CUresult.CUDA_SUCCESS, 3, 4)) == (3, 4)
    with pytest.raises(BackendError, match=r"CUDA_ERROR_ILLEGAL_ADDRESS$"):
        cuda_core.check(driver, (driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,))
    with pytest.raises(BackendError, match="lower --max-batch"):
        cuda_core.check(driver, (driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY, 0))


def test_all_that_is_used_of_cuda_core_exists() -> None:
    """Without a GPU this is what can be said of the adapter's calls."""
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    modules = {
        "driver": driver,
        "driver.CUstreamCaptureMode": driver.CUstreamCaptureMode,
        "driver.CUevent_flags": driver.CUevent_flags,
        "self._driver": driver,
        "core": core,
        "self._core": core,
    }
    used = {(module, node.attr) for node in attributes() if (module := ast.unparse(node.value)) in modules}
    assert len(used) >= 20
    assert [name for name in used if not hasattr(modules[name[0]], name[1])] == []
    assert {"CUDA_SUCCESS", "CUDA_ERROR_NO_DEVICE"} <= set(driver.CUresult.__members__)
    members = {
        core.Device: "name compute_capability pci_bus_id set_current create_stream",
        core.Stream: "handle sync close",
    }
    assert [(owner, name) for owner in members for name in members[owner].split() if not hasattr(owner, name)] == []


def test_the_calls_fit_the_signatures() -> None:
    core = pytest.importorskip("cuda.core", reason="cuda-core is not installed")
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    inspect.signature(core.Device.create_stream).bind(None)
    inspect.signature(core.Device.set_current).bind(None)
    inspect.signature(core.LegacyPinnedMemoryResource.allocate).bind(None, 1)
    for function, arguments in {
        driver.cuInit: "unsigned int Flags",
        driver.cuDeviceGetCount: "",
        driver.cuMemGetInfo: "",
        driver.cuMemAlloc: "size_t bytesize",
        driver.cuMemFree: "dptr",
        driver.cuMemcpyHtoDAsync: "dstDevice, srcHost, size_t ByteCount, hStream",
        driver.cuMemcpyDtoHAsync: "dstHost, srcDevice, size_t ByteCount, hStream",
        driver.cuEventCreate: "unsigned int Flags",
        driver.cuEventRecord: "hEvent, hStream",
        driver.cuEventSynchronize: "hEvent",
        driver.cuEventDestroy: "hEvent",
        driver.cuStreamWaitEvent: "hStream, hEvent, unsigned int Flags",
        driver.cuStreamBeginCapture: "hStream, mode: CUstreamCaptureMode",
        driver.cuStreamEndCapture: "hStream",
        driver.cuGraphInstantiate: "hGraph, unsigned long long flags",
        driver.cuGraphLaunch: "hGraphExec, hStream",
        driver.cuGraphDestroy: "hGraph",
        driver.cuGraphExecDestroy: "hGraphExec",
    }.items():
        assert function.__doc__.startswith(f"{function.__name__}({arguments})")


@pytest.mark.gpu
def test_bytes_go_to_the_gpu_and_come_back(gpu: cuda.Gpu) -> None:
    with gpu.current():
        stream, other, event = gpu.stream(), gpu.stream(), gpu.event()
        device, host = gpu.device_block(1024), gpu.host_block(1024)
        assert device.pointer % 256 == 0
        assert (host.array.shape, host.array.dtype) == ((1024,), np.uint8)
        values = np.arange(1024).astype(np.uint8)
        host.array[:] = values
        stream.upload(host.array, device.pointer)
        stream.record(event)
        event.synchronize()
        host.array[:] = 7
        other.wait(event)
        other.download(device.pointer + 256, host.array[:512])
        other.synchronize()
        np.testing.assert_array_equal(host.array[:512], values[256:768])
        np.testing.assert_array_equal(host.array[512:], 7)
        for thing in (stream, other, event, device, host):
            thing.close()


@pytest.mark.gpu
def test_a_graph_does_what_was_captured(gpu: cuda.Gpu) -> None:
    with gpu.current():
        stream, device, host = gpu.stream(), gpu.device_block(512), gpu.host_block(512)
        host.array[:] = 0
        graph = stream.capture(lambda: stream.upload(host.array, device.pointer))
        host.array[:] = 9  # read when the graph is launched
        graph.launch(stream)
        stream.synchronize()
        host.array[:] = 0
        stream.download(device.pointer, host.array)
        stream.synchronize()
        assert set(host.array) == {9}
        for thing in (graph, stream, device, host):
            thing.close()


@pytest.mark.gpu
def test_the_gpu_describes_itself(gpu: cuda.Gpu) -> None:
    with gpu.current():
        total, free = gpu.memory()
    assert 0 < free <= total
    assert gpu.name
    assert [part.isdigit() for part in gpu.compute_capability.split(".")] == [True, True]
    assert re.fullmatch("[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}.[0-7]", gpu.pci_bus_id)


@pytest.mark.gpu
def test_memory_that_is_not_there_is_an_error(gpu: cuda.Gpu) -> None:
    with gpu.current():
        total = gpu.memory().total
    with pytest.raises(BackendError, match="CUDA failed"), gpu.current():
        gpu.device_block(4 * total)
