"""Which GPU an engine belongs to: boards that share name and compute capability, and power modes."""

from dataclasses import replace

import pytest

from cxr_trt.engine.gpu import cuda
from cxr_trt.engine.gpu.identity import GpuIdentity, jetson_board, power_mode, why_not_compatible

AGX = GpuIdentity("Orin", "8.7", 16, 61, 0, "p3701-0005")
OTHERS = {
    "an Orin Nano": replace(AGX, multiprocessors=8, memory_gib=7),
    "an Orin NX": replace(AGX, multiprocessors=8, memory_gib=15),
    "an AGX with 32 GB": replace(AGX, memory_gib=30),
    "the same AGX in another power mode": replace(AGX, power_mode=2),
    "another board of the same size": replace(AGX, board="p3767-0001"),
    "another GPU": GpuIdentity("NVIDIA L4", "8.9", 58, 22),
    "another capability": replace(AGX, compute_capability="8.8"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_engine_opens_only_where_it_was_built(other):
    assert AGX.why_not(AGX) is None
    reason = AGX.why_not(OTHERS[other])
    assert reason == f"the engine was built for {AGX.text}, but this GPU is {OTHERS[other].text}"
    assert AGX.text != OTHERS[other].text  # names the timing cache too


def test_both_sides_are_described():
    assert AGX.text == "Orin (compute capability 8.7, 16 multiprocessors, 61 GiB, power mode 0, board p3701-0005)"
    assert GpuIdentity("NVIDIA L4", "8.9").text == "NVIDIA L4 (compute capability 8.9)"


def test_what_the_system_keeps_of_the_memory_may_differ_a_little():
    assert AGX.why_not(replace(AGX, memory_gib=63)) is None
    assert GpuIdentity("Orin", "8.7", 8, 7).why_not(GpuIdentity("Orin", "8.7", 8, 8)) is None


def test_settings_are_read_back_also_those_of_older_bundles():
    assert GpuIdentity.from_settings({**AGX.settings, "max_batch": 8}) == AGX
    assert GpuIdentity.from_settings({"gpu": None, "compute_capability": None}) is None
    old = GpuIdentity.from_settings({"gpu": "Orin", "compute_capability": "8.7"})
    assert old.why_not(AGX) is None
    assert old.why_not(OTHERS["another GPU"])


def test_the_power_mode_is_read_from_nvpmodels_file(tmp_path):
    file = tmp_path / "status"
    assert power_mode(file) is None
    file.write_text("pmode:0002")
    assert power_mode(file) == 2
    file.write_bytes(b"\xff")
    assert power_mode(file) is None


def test_on_a_shared_memory_what_the_system_can_give_is_free(tmp_path, monkeypatch):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       15989164 kB\nMemFree:          500000 kB\nMemAvailable:   12000000 kB\n")
    monkeypatch.setattr(cuda, "MEMORY_FILE", file)
    reported, total = 500_000 * 1024, 15_989_164 * 1024
    assert cuda.free_memory(reported, total, is_integrated=True) == 12_000_000 * 1024
    assert cuda.free_memory(reported, total, is_integrated=False) == reported
    assert cuda.free_memory(reported, 1 << 20, is_integrated=True) == reported
    file.unlink()
    assert cuda.free_memory(reported, total, is_integrated=True) == reported


@pytest.mark.parametrize(
    ("compatible", "here", "fits"),
    [
        ("same-capability", OTHERS["an Orin Nano"], True),
        ("same-capability", OTHERS["another GPU"], False),
        ("ampere", OTHERS["another GPU"], True),
        ("ampere", GpuIdentity("NVIDIA H100 80GB HBM3", "9.0", 132, 80), True),
        ("ampere", GpuIdentity("Tesla T4", "7.5", 40, 15), False),
    ],
)
def test_a_compatible_engine_opens_on_more_gpus(compatible, here, fits):
    reason = why_not_compatible(compatible, AGX, here)
    assert (reason is None) is fits
    assert fits or reason.endswith(f"but this GPU is {here.text}")


def test_the_board_is_read_from_the_device_tree(tmp_path):
    file = tmp_path / "compatible"
    assert jetson_board(file) is None
    file.write_bytes(b"nvidia,p3768-0000+p3767-0003-super\0nvidia,p3768-0000+p3767-0003\0nvidia,tegra234\0")
    assert jetson_board(file) == "p3767-0003"
    file.write_bytes(b"nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0nvidia,tegra23x\0")
    assert jetson_board(file) == "p3701-0005"
    file.write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    assert jetson_board(file) is None
