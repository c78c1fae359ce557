"""The compiled kernel stays within its budget, and the committed result is what the compiler says."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from toolchain import PLUGINS, require_gxx, require_nvcc

from benchmarks.catalogue import STUDIES
from benchmarks.plugin_budget import (
    ARCHITECTURES,
    BLOCK_THREADS,
    Kernel,
    Occupancy,
    capability,
    compile_kernels,
    compiler_version,
    describe,
    find_nvdisasm,
    floor_bytes,
    over_budget,
)

FAST = (75, 120)  # the oldest and the newest; each takes a minute of a processor
LONG = (pytest.mark.slow, pytest.mark.long)


@pytest.fixture(scope="module")
def occupancy(tmp_path_factory):
    require_gxx()
    return Occupancy(tmp_path_factory.mktemp("occupancy"))


@pytest.fixture(scope="module")
def compiled(request):
    """Futures of the kernels that tests ask for, by architecture: a compiler for each processor works ahead of them."""
    require_nvcc()
    if find_nvdisasm() is None:
        pytest.skip("needs pip install nvidia-cuda-nvdisasm")
    items = [item for item in request.session.items if item.module is request.module]
    asked = [item.callspec.params["arch"] for item in items if "compiled" in item.fixturenames]
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {arch: pool.submit(compile_kernels, arch) for arch in asked}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("arch", [arch if arch in FAST else pytest.param(arch, marks=LONG) for arch in ARCHITECTURES])
def test_no_kernel_is_over_the_budget(arch, compiled, occupancy):
    kernels = compiled[arch].result()
    assert len(kernels) == 12
    assert [(kernel, found) for kernel in kernels if (found := over_budget(kernel))] == []
    committed = STUDIES["plugin-budget"].result()
    if compiler_version() == committed["compiler"]:
        assert describe(arch, kernels, occupancy) == committed["kernels"][capability(arch)]


def test_the_result_has_every_architecture_of_the_build():
    (built,) = re.findall(r"foreach\(arch ([\d ]+)\)", (PLUGINS / "CMakeLists.txt").read_text())
    assert tuple(map(int, built.split())) == ARCHITECTURES
    assert list(STUDIES["plugin-budget"].result()["kernels"]) == [capability(arch) for arch in ARCHITECTURES]


def test_what_is_over_the_budget():
    fine = Kernel("maps", "float32", 8, 50, 0, 0, 2, 0, 0)
    assert over_budget(fine) == []
    for change in ({"registers": 65}, {"stack": 24}, {"shared": 4}, {"wide_loads": 0}, {"local": 1}, {"atomics": 1}):
        assert len(over_budget(Kernel(**(vars(fine) | change)))) == 1


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
    assert BLOCK_THREADS == 128
    assert occupancy.percent(arch, Kernel(kind, "float32", 8, registers, 0, 0, 1, 0, 0)) == percent


def test_the_byte_floor_by_hand():
    assert floor_bytes(1, 4) == 140 * (196 * 4 + 4) == 110_320
    assert floor_bytes(256, 2) == 256 * 140 * (392 + 4)
