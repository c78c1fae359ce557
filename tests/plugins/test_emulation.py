"""The emulation of CUDA threads says when a barrier or a shuffle is misused."""

import ctypes

import pytest
from toolchain import LAUNCH_FAILURE, SUCCESS, compile_for_cpu, require_gxx


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    require_gxx()
    return ctypes.CDLL(str(compile_for_cpu("faults.cpp", tmp_path_factory.mktemp("f") / "f.so", "-fPIC", "-shared")))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("which", "report"),
    [
        (0, ""),
        (1, "waits for threads that have ended or wait elsewhere"),
        (2, "waits for threads that have ended or wait elsewhere"),
        (3, "waits for threads that have ended or wait elsewhere"),
        (4, "a lane that its own mask does not name"),
        (5, "a shuffle reads a lane that its mask does not name"),
    ],
)
def test_misuse(library, which, report, seed):
    message = ctypes.create_string_buffer(500)
    error = library.misuse(which, seed, message, ctypes.c_size_t(500))
    assert message.value.decode().endswith(report)
    assert error == (LAUNCH_FAILURE if report else SUCCESS), message.value
