"""The max-min pooling kernel, compiled by g++ and executed thread by thread on the CPU, against NumPy and PyTorch."""

import numpy as np
import pytest
from pooling_cases import KINDS, Case, cases, difference, expected, values
from toolchain import (
    INVALID_VALUE,
    SUCCESS,
    CpuKernel,
    arguments,
    compile_for_cpu,
    require_gxx,
    run_sanitized,
)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    require_gxx()
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    return CpuKernel(compile_for_cpu("entry.cpp", library, "-O2", "-fPIC", "-shared"))


def check(kernel, case):
    scores = kernel.run(case)
    assert (found := difference(case, scores)) is None, found


@pytest.mark.parametrize("seed", range(9))
def test_random_cases(kernel, seed):
    for case in cases(seed, 22):
        check(kernel, case)


@pytest.mark.parametrize("shape", [(33, 33), (64, 64), (63, 65), (1, 4096)])
def test_large_maps(kernel, shape):
    for case in cases(100, 3, shapes=(shape,), rows=5):
        check(kernel, case)


@pytest.mark.parametrize("kind", KINDS)
def test_every_k_of_a_small_map(kernel, kind):
    rng = np.random.default_rng(5)
    maps = values(rng, kind, (1, 2, 3, 5), np.float32)
    for k in range(1, 16):
        check(kernel, Case(maps, k, 16 - k, 0.5, kind=kind))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shift", range(8))
def test_any_start_of_the_maps(kernel, dtype, shift):
    maps = np.random.default_rng(shift).integers(-500, 500, (1, 5, 7, 7)).astype(dtype)
    check(kernel, Case(maps, 1, 1, 0.7, shift=shift))
    check(kernel, Case(maps, 3, 2, 0.7, ((0, 0, 7, 7), (2, 3, 4, 2)), shift=shift))


@pytest.mark.parametrize("cells", [1, 7, 31, 32, 33, 65, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025])
def test_tails(kernel, cells):
    maps = np.random.default_rng(cells).permutation(4 * cells).reshape(1, 4, 1, cells) - 2.0 * cells
    maps = maps.astype(np.float32)
    check(kernel, Case(maps, 1, 1, 1.0))
    check(kernel, Case(maps, cells, (cells + 1) // 2, 1.0))


def test_the_last_cell_of_every_row_counts(kernel):
    for cells in (49, 196, 197, 255):
        maps = np.zeros((1, 3, 1, cells), np.float16)
        maps[..., -1] = 8
        np.testing.assert_array_equal(kernel.run(Case(maps, 1, 1, 0.0)), np.full((1, 1, 3), 8, np.float32))


def test_as_many_windows_as_fit(kernel):
    maps = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    check(kernel, Case(maps, 1, 1, 0.7, tuple((i // 16, i % 16, 1, 1) for i in range(256))))


def test_windows_of_a_map_that_leaves_room_for_three_warps(kernel):
    maps = np.random.default_rng(2).normal(size=(1, 7, 64, 64)).astype(np.float16)
    check(kernel, Case(maps, 1, 1, 0.7, ((60, 1, 3, 60), (0, 0, 64, 64)), max_blocks=1))


def test_one_block_walks_many_rows(kernel):
    maps = np.random.default_rng(3).normal(size=(5, 5, 4, 4)).astype(np.float32)
    for windows in ((), ((0, 0, 4, 4), (1, 1, 2, 3))):
        check(kernel, Case(maps, 2, 2, 0.7, windows, max_blocks=2))


def test_rows_beyond_32_bits(kernel):
    """The last block of a grid of 2**31 + 2 rows; only its rows are in memory."""
    first, last = 2**31, 2**31 + 2
    maps = np.random.default_rng(4).normal(size=(last - first, 4)).astype(np.float32)
    scores = np.full(last - first, np.nan, np.float32)
    args = arguments((1, last, 2, 2))
    start = maps.ctypes.data - first * 16
    to = scores.ctypes.data - first * 4
    error, message = kernel.launch(start % 2**64, to % 2**64, False, args, only_block=first // 4)
    assert (error, message) == (SUCCESS, "")
    np.testing.assert_allclose(scores, maps.max(1) + np.float32(0.7) * maps.min(1), rtol=1e-6)


def test_zero_alpha_never_looks_at_the_smallest(kernel):
    maps = np.array([-np.inf, 2, 1, 0], np.float32).reshape(1, 1, 2, 2)
    assert kernel.run(Case(maps, 2, 1, 0.0)).item() == 1.5


@pytest.mark.parametrize("sign", [1, -1])
def test_nan_of_either_sign_is_the_largest(kernel, sign):
    maps = np.array([np.copysign(np.nan, sign), 2, 1, 0], np.float32).reshape(1, 1, 2, 2)
    assert np.isnan(kernel.run(Case(maps, 1, 1, 0.0)).item())


def test_nan_is_the_largest_as_in_torch(kernel):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    for kind in ("nan", "infinite"):
        maps = values(rng, kind, (3, 4, 5, 7), np.float32)
        for k_max, k_min in ((1, 1), (3, 35), (35, 33), (2, 4)):
            cells = torch.from_numpy(maps).flatten(2)
            low = cells.topk(k_min, largest=False).values.mean(-1)
            want = cells.topk(k_max).values.mean(-1) + 0.5 * low
            scores = kernel.run(Case(maps, k_max, k_min, 0.5))[:, 0]
            np.testing.assert_allclose(scores, want.numpy(), rtol=1e-5, atol=1e-6)


def test_the_reference_agrees_with_numpy(kernel):
    for case in cases(200, 40):
        want, _ = expected(case)
        np.testing.assert_allclose(kernel.reference(case), want, rtol=1e-6, atol=1e-12, err_msg=str(case))


SHAPE = (2, 14, 14, 14)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((0, 14, 7, 7), {}, "maps [0, 14, 7, 7] have a dimension below 1"),
        ((1, 14, 7, 0), {}, "maps [1, 14, 7, 0] have a dimension below 1"),
        ((1, 1, 64, 65), {}, "maps [1, 1, 64, 65] have more than 4096 cells each"),
        ((1, 1, 2**32, 2**32), {}, "maps [1, 1, 4294967296, 4294967296] have more than 4096 cells each"),
        (
            (2**40, 2**20, 7, 7),
            {},
            "maps [1099511627776, 1048576, 7, 7] have more cells than 64-bit sizes can count",
        ),
        (SHAPE, {"alpha": float("nan")}, "alpha is nan; it must be finite"),
        (SHAPE, {"alpha": float("-inf")}, "alpha is -inf; it must be finite"),
        (SHAPE, {"k_max": 0}, "k_max is 0 and k_min is 1; both must be at least 1"),
        (SHAPE, {"k_min": -3}, "k_max is 1 and k_min is -3; both must be at least 1"),
        (SHAPE, {"k_max": 197}, "k_max is 197, but a map of 14 x 14 has only 196 cells"),
        (SHAPE, {"k_min": 197}, "k_min is 197, but a map of 14 x 14 has only 196 cells"),
        (
            SHAPE,
            {"k_max": 7, "windows": [(0, 0, 14, 14), (1, 2, 2, 3)]},
            "k_max is 7, but window 1 (y 1, x 2, h 2, w 3) has only 6 cells",
        ),
        (SHAPE, {"windows": [(0, 0, 0, 3)]}, "window 0 (y 0, x 0, h 0, w 3) is empty"),
        (
            SHAPE,
            {"windows": [(12, 0, 3, 3)]},
            "window 0 (y 12, x 0, h 3, w 3) is not inside the map of 14 x 14 cells",
        ),
        (
            SHAPE,
            {"windows": [(0, -1, 3, 3)]},
            "window 0 (y 0, x -1, h 3, w 3) starts outside the map",
        ),
        (
            SHAPE,
            {"windows": [(0, 5, 3, 2**31 - 1)]},
            "window 0 (y 0, x 5, h 3, w 2147483647) is not inside the map of 14 x 14 cells",
        ),
        (SHAPE, {"windows": [(0, 0, 1, 1)] * 257}, "257 windows were given; 0 to 256 are possible"),
    ],
)
def test_arguments_that_cannot_be(kernel, shape, options, message):
    args = arguments(shape, **options)
    assert kernel.problem(args) == message
    before = kernel.library.launches()
    assert kernel.launch(64, 64, False, args) == (INVALID_VALUE, "")
    assert kernel.library.launches() == before


def test_arguments_at_their_limits(kernel):
    for shape, options in (
        ((1, 1, 1, 1), {}),
        ((1, 2**31, 64, 64), {"k_max": 4096, "k_min": 4096}),
        (SHAPE, {"k_max": 6, "windows": [(12, 11, 2, 3)], "alpha": 0.0}),
    ):
        assert kernel.problem(arguments(shape, **options)) == ""


def test_null_pointers(kernel):
    for maps, scores in ((None, 64), (64, None)):
        assert kernel.launch(maps, scores, True, arguments(SHAPE))[0] == INVALID_VALUE


@pytest.mark.parametrize(
    ("name", "options"),
    [("memory", ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]), ("threads", ["-fsanitize=thread"])],
)
def test_sanitizers_see_nothing(name, options, tmp_path):
    require_gxx()
    program = compile_for_cpu("sanitized.cpp", tmp_path / name, "-O0", *options)
    chosen = [*cases(300, 22, rows=6), *cases(301, 2, shapes=((33, 33),), rows=5)]
    report, scores = run_sanitized(program, chosen, tmp_path)
    assert report == ""
    for case, of_case in zip(chosen, scores, strict=True):
        assert (found := difference(case, of_case)) is None, found
