"""Launches max-min pooling's kernels in the PTX machine, as max_min_pool::launch does on a GPU."""

import struct

import numpy as np
from pooling_cases import Case
from ptx_machine import Block, Kernel, Memory

INPUT, OUTPUT = 1 << 40, 1 << 44
MAX_WINDOWS = 256


def find(kernels: dict[str, Kernel], windows: bool, dtype: np.dtype, v: int) -> Kernel:
    """The instance for an input type and V keys a lane, by its mangled name."""
    name, cell = "score_windows" if windows else "score_maps", "f" if dtype == np.float32 else "6__half"
    (found,) = (kernel for mangled, kernel in kernels.items() if f"{name}I{cell}Li{v}E" in mangled)
    return found


def run(kernels: dict[str, Kernel], case: Case) -> np.ndarray:
    """The scores of a case; raises PtxFaultError."""
    n, c, h, w = case.maps.shape
    rows, cells, warps, table = n * c, h * w, 4, b""
    if case.windows:
        warps = min(4, (48 << 10) // (4 * cells))
        windows = np.zeros((MAX_WINDOWS, 4), np.uint16)
        windows[: len(case.windows)] = case.windows
        table = struct.pack("<i", len(case.windows)) + windows.tobytes()
    memory = Memory()
    maps = memory.add(case.maps.copy(), INPUT + case.shift * case.maps.itemsize)
    scores = np.full(case.scores_shape, np.nan, np.float32)
    to = memory.add(scores, OUTPUT)
    if case.windows:
        numbers = struct.pack("<QQqqiiiif", maps, to, rows, c, w, cells, case.k_max, case.k_min, case.alpha) + table
    else:
        numbers = struct.pack("<QQqiiif", maps, to, rows, cells, case.k_max, case.k_min, case.alpha)
    kernel = find(kernels, bool(case.windows), case.maps.dtype, case.keys_per_lane)
    grid = min(-(-rows // warps), case.max_blocks)
    for block in range(grid):
        Block(kernel, memory, numbers, block, grid, 32 * warps, 4 * cells * warps if case.windows else 0).run()
    return scores
