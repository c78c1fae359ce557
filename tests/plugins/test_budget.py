"""The compiled kernel stays within its budget, and plugins/BUDGET.md is what the compiler says."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from budget import ARCHITECTURES, BLOCK, TABLE, Kernel, Occupancy, compiler, floor, measure, nvdisasm, problems, row
from toolchain import PLUGINS, require_gxx, require_nvcc


@pytest.fixture(scope="module")
def occupancy(tmp_path_factory):
    require_gxx()
    return Occupancy(tmp_path_factory.mktemp("occupancy"))


@pytest.fixture(scope="module")
def measured():
    """Futures of the kernels, by architecture: a compiler for each processor works ahead of the tests."""
    require_nvcc()
    if nvdisasm() is None:
        pytest.skip("needs pip install nvidia-cuda-nvdisasm")
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {arch: pool.submit(measure, arch) for arch in ARCHITECTURES}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_kernel_is_over_the_budget(arch, measured, occupancy):
    kernels = measured[arch].result()
    assert len(kernels) == 12
    assert [(kernel, found) for kernel in kernels if (found := problems(kernel))] == []
    committed = TABLE.read_text()
    if f"nvcc\n{compiler()}." in committed:
        assert row(arch, kernels, occupancy) in committed.splitlines()


def test_the_table_has_every_architecture_of_the_build():
    (built,) = re.findall(r"foreach\(arch ([\d ]+)\)", (PLUGINS / "CMakeLists.txt").read_text())
    assert tuple(map(int, built.split())) == ARCHITECTURES
    rows = re.findall(r"^\| (\d+)\.(\d) \|", TABLE.read_text(), re.M)
    assert tuple(int(major + minor) for major, minor in rows) == ARCHITECTURES


def test_what_is_over_the_budget():
    fine = Kernel("maps", "float32", 8, 50, 0, 0, 2, 0, 0)
    assert problems(fine) == []
    for change in ({"registers": 65}, {"stack": 24}, {"shared": 4}, {"wide_loads": 0}, {"local": 1}, {"atomics": 1}):
        assert len(problems(Kernel(**(vars(fine) | change)))) == 1


@pytest.mark.parametrize(
    ("arch", "kind", "registers", "percent"),
    [
        (75, "maps", 64, 100),  # 65,536 registers for 1,024 threads
        (90, "maps", 32, 100),
        (90, "maps", 33, 75),  # 40 are given out: 12 blocks of 128 threads
        (120, "maps", 255, 16),  # 2 blocks of 12
        (75, "windows", 32, 100),  # 3,136 bytes a block do not matter
    ],
)
def test_occupancy_by_hand(occupancy, arch, kind, registers, percent):
    assert BLOCK == 128
    assert occupancy.percent(arch, Kernel(kind, "float32", 8, registers, 0, 0, 1, 0, 0)) == percent


def test_the_byte_floor_by_hand():
    assert floor(1, 4) == 140 * (196 * 4 + 4) == 110_320
    assert floor(256, 2) == 256 * 140 * (392 + 4)
    assert re.search(r"\| 32 \| 4,480 \| 3,530,240 \| 1,774,080 \|", TABLE.read_text())
