"""What fits the driver: the packages as pip lists them, for drivers of each kind."""

import importlib.util
import sys

import pytest

from cxr_trt.commands import doctor
from cxr_trt.engine.gpu import cuda_versions
from cxr_trt.engine.gpu.cuda_versions import (
    CudaVersion,
    cuda_of,
    driver_cuda,
    install_command,
    installed_packages,
    why_too_new,
)
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend

CU13 = {
    "cuda-bindings": "13.5.0",
    "tensorrt-cu13": "11.4.0.106",
    "tensorrt-cu13-bindings": "11.4.0.106",
    "tensorrt-cu13-libs": "11.4.0.106",
}
CU12 = {"cuda-bindings": "12.9.10", "tensorrt-cu12": "10.3.0", "tensorrt-rtx-cu12-libs": "1.7.1.116"}
LAST_YEARS = CudaVersion(12, 4)
UNINSTALL = "pip uninstall --yes tensorrt-cu13 tensorrt-cu13-bindings tensorrt-cu13-libs"


@pytest.fixture
def jetson(tmp_path, monkeypatch):
    (tmp_path / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.0")
    monkeypatch.setattr(cuda_versions, "JETSON_FILE", tmp_path / "nv_tegra_release")


def test_the_cuda_of_packages_stands_in_their_names_and_versions():
    assert cuda_of(CU13) == {"tensorrt": 13, "cuda-bindings": 13}
    assert cuda_of(CU12) == {"tensorrt": 12, "tensorrt-rtx": 12, "cuda-bindings": 12}
    assert cuda_of({"numpy": "2.0.2", "tensorrt": "10.3.0"}) == {}


def test_what_is_for_a_newer_cuda_than_the_drivers_is_refused_with_the_command_that_mends_it():
    assert why_too_new("tensorrt", CU13, LAST_YEARS) == (
        "tensorrt is for CUDA 13 and cuda-bindings is for CUDA 13, but the driver supports CUDA 12.4: "
        f"run {UNINSTALL} && pip install 'cxr-trt[tensorrt-cu12]'"
    )
    whole = {**CU13, "tensorrt": "11.4.0.106"}
    assert f"run {UNINSTALL} tensorrt && pip install" in (why_too_new("tensorrt", whole, LAST_YEARS) or "")
    assert why_too_new("tensorrt-rtx", {"cuda-bindings": "13.0.1"}, LAST_YEARS) == (
        "cuda-bindings is for CUDA 13, but the driver supports CUDA 12.4: run pip install 'cxr-trt[tensorrt-rtx-cu12]'"
    )


@pytest.mark.parametrize("driver", [CudaVersion(13, 0), CudaVersion(14, 1)])
def test_a_driver_runs_what_is_for_its_cuda_or_an_older_one(driver):
    for installed in (CU12, CU13):
        assert why_too_new("tensorrt", installed, driver) is None
    assert why_too_new("tensorrt", CU12, LAST_YEARS) is None
    assert why_too_new("tensorrt", CU13, None) is None


@pytest.mark.parametrize(
    ("driver", "extra"), [(None, 13), (CudaVersion(12, 0), 12), (CudaVersion(13, 0), 13), (CudaVersion(15, 0), 13)]
)
def test_the_extra_is_that_of_the_driver(driver, extra):
    assert install_command("tensorrt", driver) == f"pip install 'cxr-trt[tensorrt-cu{extra}]'"
    assert install_command("tensorrt-rtx", driver) == f"pip install 'cxr-trt[tensorrt-rtx-cu{extra}]'"


@pytest.mark.usefixtures("jetson")
def test_a_jetson_takes_tensorrt_from_the_system():
    assert install_command("tensorrt", CudaVersion(12, 6)).startswith("sudo apt-get install python3-libnvinfer && ")
    assert "cxr-trt[jetson]" in install_command("tensorrt", CudaVersion(12, 6))


def test_the_packages_of_this_environment_are_found():
    installed = installed_packages()
    assert "numpy" in installed
    if importlib.util.find_spec("tensorrt_rtx"):
        assert cuda_of(installed)["tensorrt-rtx"] == 13


def test_the_drivers_cuda_is_asked_of_its_library():
    found = driver_cuda()
    assert found is None or found.major >= 11


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_too_old_a_tensorrt_is_one_sentence(tmp_path, monkeypatch, jetson):
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.6.2'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    backend = TensorRTBackend("tensorrt")
    sentence = "TensorRT 8.6.2 is too old: 10.3 or newer is needed, which JetPack 6.1 brings"
    assert backend.why_not_build() == backend.why_not_run() == sentence
    sys.modules.pop("tensorrt")


def test_doctor_shows_the_extra_that_fits_and_no_other(monkeypatch):
    monkeypatch.setattr(doctor, "driver_cuda", lambda: CudaVersion(12, 4))
    commands = doctor.install_commands()
    assert commands["tensorrt-cu12"] == "pip install 'cxr-trt[tensorrt-cu12]'"
    assert commands["tensorrt-rtx-cu12"] == "pip install 'cxr-trt[tensorrt-rtx-cu12]'"
    assert commands["cuda-bindings"] == "pip install 'cxr-trt[tensorrt-cu12]'"
    assert not {"tensorrt-cu13", "tensorrt-rtx-cu13"} & set(commands)


@pytest.mark.usefixtures("jetson")
def test_on_a_jetson_doctor_shows_no_tensorrt_from_pypi():
    commands = doctor.install_commands()
    assert commands["cuda-core"] == "pip install 'cxr-trt[jetson]'"
    assert not [name for name in commands if name.startswith("tensorrt")]
