"""The kernel on a GPU, against NumPy in float64 and PyTorch on the same GPU."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from pooling_cases import Case, cases, difference, values
from toolchain import INVALID_VALUE, ROOT, SUCCESS, arguments

torch = pytest.importorskip("torch")

from gpu_kernel import GpuKernel, compile_for_gpu, pool_with_torch, require_gpu  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    require_gpu()
    return compile_for_gpu(tmp_path_factory.mktemp("gpu"), torch.cuda.get_device_capability())


@pytest.fixture(scope="module")
def kernel(library):
    return GpuKernel(library)


def check(kernel, case):
    assert (found := difference(case, kernel.run(case).cpu().numpy())) is None, found


@pytest.mark.parametrize("seed", range(9))
def test_random_cases(kernel, seed):
    for case in cases(500 + seed, 66):
        check(kernel, case)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(library, tool):
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer is not installed")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
    cases_of_the_kernel = [sys.executable, str(ROOT / "tests" / "support" / "gpu_kernel.py"), str(library), "900", "60"]
    done = subprocess.run([*command, *cases_of_the_kernel], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors" in done.stdout


@pytest.mark.parametrize("shape", [(33, 33), (64, 64), (63, 65), (1, 4096)])
def test_large_maps(kernel, shape):
    for case in cases(600, 9, shapes=(shape,), rows=5):
        check(kernel, case)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shift", range(8))
def test_any_start_of_the_maps(kernel, dtype, shift):
    maps = np.random.default_rng(shift).integers(-500, 500, (3, 5, 7, 7)).astype(dtype)
    check(kernel, Case(maps, 1, 1, 0.7, shift=shift))
    check(kernel, Case(maps, 3, 2, 0.7, ((0, 0, 7, 7), (2, 3, 4, 2)), shift=shift))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("k_max", "k_min", "alpha"), [(1, 1, 0.7), (10, 5, 0.7), (196, 196, -1.0), (3, 1, 0.0)])
@pytest.mark.parametrize("kind", ["normal", "ties", "infinite", "nan"])
def test_256_xrays_of_ten_crops_as_pytorch_pools_them(kernel, dtype, k_max, k_min, alpha, kind):
    maps = values(np.random.default_rng(7), kind, (2560, 14, 14, 14), dtype)
    scores = kernel.run(Case(maps, k_max, k_min, alpha))
    expected = pool_with_torch(torch.from_numpy(maps).cuda().float(), k_max, k_min, alpha)
    # sums of values up to 5 that cancel: float32 leaves some 1e-6 of them, in PyTorch's order and in the kernel's
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=5e-6, equal_nan=True)


def test_arguments_that_cannot_be_launch_nothing(kernel):
    maps, scores = torch.zeros(1, 14, 7, 7, device="cuda"), torch.full((1, 1, 14), -5.0, device="cuda")
    assert kernel.launch(maps, scores, arguments((1, 14, 7, 7), k_max=50)) == INVALID_VALUE
    torch.cuda.synchronize()
    assert (scores == -5).all()


def test_it_can_be_captured_in_a_cuda_graph(kernel):
    maps, scores = torch.zeros(10, 14, 14, 14, device="cuda"), torch.zeros(10, 1, 14, device="cuda")
    args = arguments(maps.shape, 3, 2, 0.7)
    assert kernel.launch(maps, scores, args) == SUCCESS  # loads the code, which a capture may not
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert kernel.launch(maps, scores, args) == SUCCESS
    maps.normal_()
    graph.replay()
    torch.testing.assert_close(scores, pool_with_torch(maps, 3, 2, 0.7), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_benchmark_measures_every_way(kernel, dtype):
    """It also holds the scores of each way against PyTorch's."""
    from benchmarks.pooling_on_gpu import WAYS, time_ways

    measured = time_ways(kernel, images=1, dtype=dtype, runs=5)
    assert measured.keys() == WAYS.keys()
    for way in ("kernel", "pytorch", "copy"):
        assert measured[way]["microseconds"] > 0
        assert measured[way]["gigabytes_per_second"] > 0
    for way in ("tensorrt plugin", "tensorrt operators"):
        assert measured[way].keys() & {"microseconds", "not_measured"}
