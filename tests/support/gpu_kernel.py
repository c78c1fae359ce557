"""The kernel on a GPU: compiled by nvcc for the GPU that is there, launched on PyTorch's memory and stream.

python gpu_kernel.py LIBRARY SEED COUNT     runs random cases, for compute-sanitizer
"""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pooling_cases import Case, cases, difference
from toolchain import PLUGINS, SUCCESS, TEST_SOURCES, arguments, require_nvcc


def require_gpu() -> None:
    """Skips a test where there is no GPU to compile for and to run on."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no NVIDIA GPU")
    require_nvcc()


def compile_for_gpu(folder: Path, capability: tuple[int, int]) -> Path:
    """The launcher as a library, for one compute capability."""
    output = folder / "gpu.so"
    options = [
        "-std=c++17",
        "-shared",
        "-Xcompiler",
        "-fPIC",
        f"-I{PLUGINS}",
        f"-arch=sm_{capability[0]}{capability[1]}",
    ]
    subprocess.run(["nvcc", *options, str(TEST_SOURCES / "gpu_entry.cu"), "-o", str(output)], check=True)
    return output


class GpuKernel:
    """The library that nvcc made of gpu_entry.cu."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))

    def launch(self, maps: torch.Tensor, scores: torch.Tensor, args) -> int:
        """Puts the pooling on PyTorch's current stream; returns the launcher's error code."""
        return self.library.run_on_gpu(
            int(maps.dtype == torch.float16),
            ctypes.c_void_p(maps.data_ptr()),
            ctypes.c_void_p(scores.data_ptr()),
            ctypes.byref(args),
            ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
        )

    def run(self, case: Case) -> torch.Tensor:
        """The scores of a case; raises RuntimeError if the launch fails or writes elsewhere."""
        maps = place(torch.from_numpy(case.maps), case.shift)
        before = maps.clone()
        memory = torch.full((case.maps.shape[0] * len(case.areas) * case.maps.shape[1] + 8,), torch.nan, device="cuda")
        scores = memory[4:-4].view(case.scores_shape)
        args = arguments(case.maps.shape, case.k_max, case.k_min, case.alpha, case.windows)
        if (error := self.launch(maps, scores, args)) != SUCCESS:
            raise RuntimeError(f"error {error}")
        torch.cuda.synchronize()
        if not torch.equal(maps.view(torch.uint8), before.view(torch.uint8)):
            raise RuntimeError("the maps were written to")
        if not memory[[0, 1, 2, 3, -4, -3, -2, -1]].isnan().all():
            raise RuntimeError("a score was written outside the scores")
        return scores


def place(maps: torch.Tensor, shift: int) -> torch.Tensor:
    """A copy on the GPU that starts `shift` elements after a 64-byte boundary."""
    memory = torch.empty(maps.numel() + shift, dtype=maps.dtype, device="cuda")
    view = memory[shift:].view(maps.shape)
    view.copy_(maps)
    return view


def pool_with_torch(maps: torch.Tensor, k_max: int, k_min: int, alpha: float) -> torch.Tensor:
    """Scores [N, 1, C] of whole maps by PyTorch, as `cxr_trt.model.network.MaxMinPool` has them."""
    from cxr_trt.model.network import MaxMinPool

    return MaxMinPool(k_max, k_min, alpha)(maps)[:, None]


if __name__ == "__main__":
    compiled = GpuKernel(Path(sys.argv[1]))
    for case in cases(int(sys.argv[2]), int(sys.argv[3])):
        if found := difference(case, compiled.run(case).cpu().numpy()):
            sys.exit(found)
