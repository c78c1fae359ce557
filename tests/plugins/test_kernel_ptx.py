"""The PTX that nvcc makes of the max-min pooling kernel, executed instruction by instruction, against NumPy."""

import struct

import numpy as np
import pytest
from pooling_cases import KINDS, Case, cases, difference
from ptx_machine import Block, Memory, PtxFaultError, parse
from ptx_pooling import find, run
from toolchain import compile_to_ptx, require_nvcc

SMALL = ((7, 7), (14, 14), (1, 1), (5, 13), (16, 16), (3, 11))


@pytest.fixture(scope="module", params=["sm_75", "sm_80"])
def kernels(request, tmp_path_factory):
    """sm_75 reduces across a warp by shuffles, sm_80 by redux."""
    require_nvcc()
    return parse(compile_to_ptx("float 8, __half 8", request.param, tmp_path_factory.mktemp("ptx")))


def check(kernels, case):
    scores = run(kernels, case)
    assert (found := difference(case, scores)) is None, found


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_random_cases(kernels, seed):
    for case in cases(400 + seed, 2, shapes=SMALL[seed % 3 :], rows=5):
        check(kernels, case)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_start_of_the_maps(kernels, dtype):
    for shift in (1, 2, 4):
        maps = np.random.default_rng(shift).integers(-500, 500, (1, 5, 7, 7)).astype(dtype)
        check(kernels, Case(maps, 1, 1, 0.7, shift=shift))
        check(kernels, Case(maps, 1, 1, 0.7, ((0, 0, 7, 7), (2, 3, 4, 2)), shift=shift, max_blocks=1))


def test_larger_maps(tmp_path):
    require_nvcc()
    kernels = parse(compile_to_ptx("float 32", "sm_75", tmp_path))
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(1, 3, 31, 33)).astype(np.float32)
    check(kernels, Case(maps, 5, 1000, 0.7))
    check(kernels, Case(maps, 1, 3, 0.7, ((1, 2, 20, 30), (0, 0, 1, 3))))


def test_rows_beyond_32_bits(kernels):
    first, last = 2**31, 2**31 + 2
    maps = np.random.default_rng(4).normal(size=(last - first, 4)).astype(np.float32)
    scores = np.full(last - first, np.nan, np.float32)
    memory = Memory()
    memory.add(maps, (1 << 40) + first * 16)
    memory.add(scores, (1 << 44) + first * 4)
    numbers = struct.pack("<QQqiiif", 1 << 40, 1 << 44, last, 4, 1, 1, 0.7)
    kernel = find(kernels, False, maps.dtype, 8)
    Block(kernel, memory, numbers, first // 4, -(-last // 4), 128, 0).run()
    np.testing.assert_allclose(scores, maps.max(1) + np.float32(0.7) * maps.min(1), rtol=1e-6)


HEAD = """
.visible .entry kernel(
	.param .u64 kernel_param_0
)
{
	ld.param.u64 	%rd1, [kernel_param_0];
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd2, %r1, 4;
	add.s64 	%rd3, %rd1, %rd2;
	shl.b32 	%r2, %r1, 2;
	setp.lt.u32 	%p1, %r1, 16;
	mov.b32 	%r9, 1;
"""


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("ld.global.u32 %r3, [%rd3+256];", "outside every buffer"),
        ("ld.global.u32 %r3, [%rd3+1];", "misaligned"),
        ("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd3];", "misaligned"),
        ("add.s32 %r3, %r4, 1;", "before it is written: %r4"),
        ("@%p1 mov.u32 %r3, 1;\nadd.s32 %r4, %r3, 1;", "before it is written: %r3"),
        ("ld.shared.u32 %r3, [%r2];", "shared memory read before"),
        ("st.shared.u32 [%r2+256], %r1;", "outside 256 bytes"),
        ("st.shared.u32 [%r2], %r1;\nxor.b32 %r3, %r2, 4;\nld.shared.u32 %r4, [%r3];", "without a barrier"),
        (
            "st.shared.u32 [%r2], %r1;\nbar.warp.sync -1;\nxor.b32 %r3, %r2, 128;\nld.shared.u32 %r4, [%r3];",
            "without a b",
        ),
        ("st.shared.u32 [%r2], %r1;\nxor.b32 %r3, %r2, 128;\nst.shared.u32 [%r3], %r1;", "without a barrier"),
        (
            "bar.sync 0;\nst.shared.u32 [%r2], %r1;\nxor.b32 %r3, %r2, 128;\nst.shared.u32 [%r3], %r1;",
            "without a barrier",
        ),
        ("st.shared.u32 [0], %r1;", "two threads write"),
        ("st.global.u32 [%rd1], %r1;", "two threads write"),
        ("@%p1 bra $L1;\nbar.sync 0;\n$L1:", "never come"),
        ("@%p1 bra $L1;\nbar.warp.sync -1;\n$L1:", "never come"),
        ("mov.b32 %r3, 65535;\nshfl.sync.bfly.b32 %r4|%p2, %r1, 16, 31, %r3;", "own mask"),
        ("@%p1 bra $L1;\nbra $L2;\n$L1:\nshfl.sync.bfly.b32 %r4|%p2, %r1, 16, 31, 65535;\n$L2:", "a shuffle reads"),
        ("div.rn.ftz.f32 %f1, 0f3F800000, 0f3F800000;", "inexact"),
        ("sin.f32 %f1, 0f3F800000;", "not implemented"),
    ],
)
def test_the_machine_faults(body, fault):
    kernel = parse(f"{HEAD}\t{body}\n\tret;\n\n}}\n")["kernel"]
    memory = Memory()
    address = memory.add(np.arange(64, dtype=np.uint32), 4096)
    with pytest.raises(PtxFaultError, match=fault):
        Block(kernel, memory, struct.pack("<Q", address), 0, 1, 64, 256).run()


def test_the_machine_orders_by_barriers():
    store, other, load = "st.shared.u32 [%r2], %r1;", "xor.b32 %r3, %r2, {};", "ld.shared.u32 %r4, [%r3];"
    for barrier, distance in (("bar.warp.sync -1;", 4), ("bar.sync 0;", 128)):
        lines = [store, barrier, other.format(distance), load, barrier, "st.shared.u32 [%r2], %r4;", "ret;"]
        kernel = parse(HEAD + "\n".join(lines) + "\n\n}\n")["kernel"]
        block = Block(kernel, Memory(), struct.pack("<Q", 4096), 0, 1, 64, 256)
        block.run()
        np.testing.assert_array_equal(block.shared.view(np.uint32), np.arange(64) ^ (distance // 4))
