"""A GPU's state while something is timed: from a Jetson's files, laid out as its kernel does it, and from NVML."""

import time

import pytest

from cxr_trt.engine.gpu.cuda import gpu, why_no_gpu
from cxr_trt.measure import gpu_state

NO_CARD = "ffff:ff:1f.0"


@pytest.fixture
def orin(tmp_path):
    """The files of a Jetson AGX Orin that matter, a sensor of another kind, and a rail that is not connected."""
    files = {
        "devfreq/17000000.gpu/cur_freq": "1300500000",
        "devfreq/17000000.emc/cur_freq": "3199000000",
        "hwmon/hwmon0/name": "pwmfan",
        "hwmon/hwmon3/name": "ina3221",
        "hwmon/hwmon3/in1_label": "VDD_GPU_SOC",
        "hwmon/hwmon3/in1_input": "19016",
        "hwmon/hwmon3/curr1_input": "512",
        "hwmon/hwmon3/in2_label": "NC",
        "hwmon/hwmon3/in2_input": "0",
        "hwmon/hwmon3/curr2_input": "0",
        "hwmon/hwmon3/in3_label": "VIN_SYS_5V0",
        "hwmon/hwmon3/in3_input": "4992",
        "hwmon/hwmon3/curr3_input": "1000",
    }
    for name, text in files.items():
        path = tmp_path / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return tmp_path


def test_a_jetson_tells_its_clock_and_the_watts_of_its_rails(orin):
    assert gpu_state.jetson(orin) == {
        "gpu_clock_mhz": 1300.5,
        "VDD_GPU_SOC_watts": pytest.approx(9.736, abs=1e-3),
        "VIN_SYS_5V0_watts": pytest.approx(4.992),
    }


def test_thors_clock_is_that_of_what_computes_not_of_its_codecs(tmp_path):
    for name, hertz in {"gpu-gpc-0": 1_575_000_000, "gpu-nvd-0": 1_692_000_000}.items():
        path = tmp_path / "class" / "devfreq" / name / "cur_freq"
        path.parent.mkdir(parents=True)
        path.write_text(f"{hertz}\n")
    assert gpu_state.jetson(tmp_path) == {"gpu_clock_mhz": 1575.0}


def test_where_nvml_tells_nothing_the_files_are_read(orin, monkeypatch):
    monkeypatch.setattr(gpu_state, "SYSTEM_FOLDER", orin)
    monkeypatch.setattr(gpu_state, "SAMPLING_SECONDS", 0.001)
    monkeypatch.setattr(gpu_state, "nvml", lambda pci_bus_id: lambda: {})
    state = gpu_state.GpuState(NO_CARD)
    with state.watched():
        time.sleep(0.05)
    assert state.median()["gpu_clock_mhz"] == 1300.5


def test_a_sensor_that_cannot_be_read_is_left_out(orin):
    (orin / "class" / "hwmon" / "hwmon3" / "curr1_input").unlink()
    (orin / "class" / "devfreq" / "17000000.gpu" / "cur_freq").write_text("<unknown>\n")
    assert list(gpu_state.jetson(orin)) == ["VIN_SYS_5V0_watts"]


def test_medians_are_of_what_was_read_meanwhile(orin, monkeypatch):
    monkeypatch.setattr(gpu_state, "SYSTEM_FOLDER", orin)
    monkeypatch.setattr(gpu_state, "SAMPLING_SECONDS", 0.001)
    clock = orin / "class" / "devfreq" / "17000000.gpu" / "cur_freq"
    state = gpu_state.GpuState(NO_CARD)
    with state.watched():
        for megahertz in (100, 200, 300):
            clock.write_text(f"{megahertz}000000")
            time.sleep(0.1)
    clock.write_text("900000000")
    assert 100 < state.median()["gpu_clock_mhz"] < 300


def test_without_sensors_nothing_is_said(tmp_path):
    assert gpu_state.jetson(tmp_path) == {}


def test_nvml_knows_no_card_where_there_is_none():
    pytest.importorskip("pynvml")
    assert gpu_state.nvml(NO_CARD) is None


@pytest.mark.gpu
def test_a_card_tells_its_clocks_and_power():
    if reason := why_no_gpu():
        pytest.skip(reason)
    state = gpu_state.GpuState(gpu().pci_bus_id)
    with state.watched():
        time.sleep(1)
    median = state.median()
    assert 100 < median["sm_clock_mhz"] < 5000
    assert 1 < median["watts"] < 2000
