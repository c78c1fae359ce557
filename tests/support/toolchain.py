"""Compiles the kernel, for the CPU with g++ and to PTX with nvcc, and calls what g++ made."""

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pooling_cases import Case

ROOT = Path(__file__).parents[2]
TEST_SOURCES = ROOT / "tests" / "plugins"  # C++ and CUDA files that only tests compile
PLUGINS = Path(os.environ.get("CXR_TRT_PLUGINS", ROOT / "plugins"))  # another folder when the mutants are tested
SUCCESS, INVALID_VALUE, LAUNCH_FAILURE = 0, 1, 719  # cudaError_t


@cache
def cuda_headers() -> Path | None:
    """The folder of cuda_fp16.h: the toolkit's, or that of the wheels PyTorch brings."""
    folders = [Path("/usr/local/cuda/include")]
    if nvcc := shutil.which("nvcc"):
        folders.insert(0, Path(nvcc).resolve().parents[1] / "include")
    folders += [Path(path) / "nvidia" / name / "include" for path in sys.path for name in ("cu13", "cuda_runtime")]
    return next((folder for folder in folders if (folder / "cuda_fp16.h").exists()), None)


def require_gxx() -> None:
    """Skips a test where the kernel cannot be compiled for the CPU."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    if cuda_headers() is None:
        pytest.skip("CUDA's headers (cuda_fp16.h) are not installed")


def require_nvcc() -> None:
    """Skips a test where the kernel cannot be compiled for a GPU."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")


def compile_for_cpu(source: str, output: Path, *options: str) -> Path:
    """Compiles a C++ file of tests/plugins with g++; CXXFLAGS has the last word."""
    flags = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]
    folders = [f"-I{PLUGINS}", f"-I{TEST_SOURCES}", "-isystem", str(cuda_headers())]
    last = os.environ.get("CXXFLAGS", "").split()
    subprocess.run(
        ["g++", *flags, *folders, *options, *last, str(TEST_SOURCES / source), "-o", str(output)], check=True
    )
    return output


def compile_to_ptx(instances: str, arch: str, folder: Path) -> str:
    """The PTX of instances of the launcher, say "float 8, __half 32", for an architecture."""
    source = folder / f"instances_{arch}.cu"
    lines = ['#include "max_min_pool.cuh"', "namespace max_min_pool {"]
    for instance in instances.split(", "):
        cell, v = instance.split()
        lines.append(
            f"template cudaError_t launch_class<{cell}, {v}>"
            f"(const {cell}*, float*, const Arguments&, cudaStream_t, int);"
        )
    source.write_text("\n".join([*lines, "}\n"]))
    output = source.with_suffix(".ptx")
    command = ["nvcc", "-std=c++17", f"-I{PLUGINS}", f"-arch={arch}", "-ptx", str(source), "-o", str(output)]
    subprocess.run(command, check=True)
    return output.read_text()


class Arguments(ctypes.Structure):
    """max_min_pool::Arguments."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n", "c", "h", "w", "k_max", "k_min")),
        ("alpha", ctypes.c_float),
        ("windows", ctypes.c_void_p),
        ("window_count", ctypes.c_int),
    ]


def arguments(shape, k_max: int = 1, k_min: int = 1, alpha: float = 0.7, windows=()) -> Arguments:
    """The C structure; it keeps its windows alive."""
    table = np.array(windows, np.int32).reshape(-1, 4)
    made = Arguments(*shape, k_max, k_min, alpha, table.ctypes.data if len(table) else None, len(table))
    made.table = table
    return made


def place(cells: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """A copy that starts `shift` elements after a 64-byte boundary, and its memory, NaN around the copy."""
    memory = np.full(cells.size + shift + 128 // cells.itemsize, np.nan, cells.dtype)
    start = -memory.ctypes.data % 64 // cells.itemsize + shift
    view = memory[start : start + cells.size].reshape(cells.shape)
    view[...] = cells
    return view, memory


class CpuKernel:
    """The library that g++ made of entry.cpp."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        self.library.launches.restype = ctypes.c_int64

    def launch(self, maps: int | None, scores: int | None, float16: bool, args: Arguments, **settings: int):
        """Returns the launcher's error code and what the emulation says."""
        message = ctypes.create_string_buffer(500)
        error = self.library.run_on_cpu(
            int(float16),
            ctypes.c_void_p(maps),
            ctypes.c_void_p(scores),
            ctypes.byref(args),
            settings.get("max_blocks", 1 << 30),
            settings.get("seed", 0),
            ctypes.c_int64(settings.get("only_block", -1)),
            message,
            ctypes.c_size_t(500),
        )
        return error, message.value.decode()

    def run(self, case: Case) -> np.ndarray:
        """The scores of a case; raises RuntimeError if the launch fails or writes elsewhere."""
        maps, maps_memory = place(case.maps, case.shift)
        before = maps_memory.copy()
        scores, memory = place(np.full(case.scores_shape, np.nan, np.float32), 4)
        args = arguments(case.maps.shape, case.k_max, case.k_min, case.alpha, case.windows)
        float16 = case.maps.dtype == np.float16
        error, message = self.launch(
            maps.ctypes.data, scores.ctypes.data, float16, args, max_blocks=case.max_blocks, seed=case.seed
        )
        if error != SUCCESS:
            raise RuntimeError(f"error {error}: {message}")
        if before.tobytes() != maps_memory.tobytes():
            raise RuntimeError("the maps were written to")
        result = scores.copy()
        scores[...] = np.nan
        if not np.isnan(memory).all():
            raise RuntimeError("a score was written outside the scores")
        return result

    def reference(self, case: Case) -> np.ndarray:
        """The scores by the plain C++ reference, in float64."""
        maps = np.ascontiguousarray(case.maps, np.float32)
        scores = np.empty(case.scores_shape)
        args = arguments(case.maps.shape, case.k_max, case.k_min, case.alpha, case.windows)
        self.library.run_reference(
            ctypes.c_void_p(maps.ctypes.data), ctypes.c_void_p(scores.ctypes.data), ctypes.byref(args)
        )
        return scores

    def problem(self, args: Arguments) -> str:
        """The sentence of the argument check; empty when nothing is wrong."""
        message = ctypes.create_string_buffer(500)
        self.library.find_problem(ctypes.byref(args), message, ctypes.c_size_t(500))
        return message.value.decode()


def write_cases(path: Path, cases: list[Case]) -> None:
    """Writes the file that sanitized.cpp reads."""
    with path.open("wb") as file:
        for case in cases:
            float16 = int(case.maps.dtype == np.float16)
            alpha = int(np.float32(case.alpha).view(np.uint32))
            head = (float16, case.seed, case.shift, case.max_blocks, *case.maps.shape, case.k_max, case.k_min, alpha)
            file.write(np.array([*head, len(case.windows)], np.int64).tobytes())
            file.write(np.array(case.windows, np.int32).tobytes())
            file.write(case.maps.tobytes())


def run_sanitized(program: Path, cases: list[Case], folder: Path, timeout: int = 900) -> tuple[str, list[np.ndarray]]:
    """Runs cases in a program with a sanitizer: what it reported, and the scores if that is nothing."""
    inputs, outputs = folder / "cases.bin", folder / "scores.bin"
    write_cases(inputs, cases)
    command = [str(program), str(inputs), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    about_fibers = "ASan doesn't fully support makecontext"  # printed once, about any program that uses them
    report = "\n".join(line for line in done.stderr.splitlines() if about_fibers not in line)
    if done.returncode or report:
        return report or f"exit code {done.returncode}", []
    flat, scores = np.fromfile(outputs, np.float32), []
    for case in cases:
        size = int(np.prod(case.scores_shape))
        scores.append(flat[:size].reshape(case.scores_shape))
        flat = flat[size:]
    return "", scores
