"""What GPUs do at most, from the data sheets of their vendor: dense operations, without sparsity."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class GpuPeaks:
    """A GPU's peaks. See `cxr_trt.measure.roofline.Peaks`.

    device: a regular expression for the name that CUDA gives it. operations: per second, by precision, as published.
    bandwidth: bytes per second. source: where the numbers come from.
    boards: the part numbers of the Jetson modules that have it, as `cxr_trt.engine.gpu.identity.jetson_board` reads
        them, where the name does not tell them apart. multiprocessors: how many it must have, likewise.
    """

    name: str
    device: str
    operations: dict[str, float]
    bandwidth: float
    source: str
    boards: tuple[str, ...] = ()
    multiprocessors: int | None = None


def _peaks(*, fp32: float, tf32: float | None = None, fp16: float, int8: float) -> dict[str, float]:
    """Operations per second by precision, given in tera-operations per second; without tf32 where none is published."""
    peaks = {"fp32": fp32, "tf32": tf32, "fp16": fp16, "int8": int8}
    return {precision: value * 1e12 for precision, value in peaks.items() if value is not None}


def _orin(*, cores: int, ghz: float, sparse_int8: float) -> dict[str, float]:
    """A Jetson Orin's peaks: two operations per core and cycle, half of the sparse peak, and half of that for float16.

    Its documents give no peak of TF32.
    """
    return _peaks(fp32=2 * cores * ghz / 1000, fp16=sparse_int8 / 4, int8=sparse_int8 / 2)


GPU_PEAKS = (
    GpuPeaks("T4", r"\bT4\b", _peaks(fp32=8.1, fp16=65, int8=130), 320e9, "NVIDIA T4 data sheet"),
    GpuPeaks(
        "L4",
        r"\bL4\b",
        _peaks(fp32=30.3, tf32=60, fp16=121, int8=242.5),
        300e9,
        "NVIDIA L4 data sheet; half of its sparse peaks (120 for TF32)",
    ),
    GpuPeaks(
        "A100",
        r"\bA100-SXM4-80GB\b",
        _peaks(fp32=19.5, tf32=156, fp16=312, int8=624),
        2039e9,
        "NVIDIA A100 data sheet, SXM with 80 GB",
    ),
    GpuPeaks(
        "H100",
        r"\bH100 80GB HBM3\b",
        _peaks(fp32=67, tf32=494.5, fp16=989.5, int8=1979),
        3350e9,
        "NVIDIA H100 data sheet, SXM; half of its sparse peaks (989 for TF32)",
    ),
    GpuPeaks(
        "B200",
        r"\bB200\b",
        _peaks(fp32=75, tf32=1100, fp16=2250, int8=4500),
        7700e9,
        "NVIDIA Blackwell data sheet, one GPU of an HGX B200; half of its sparse peaks (2,200 for TF32)",
    ),
    GpuPeaks(
        "Orin Nano 8 GB",
        r"\bOrin\b",
        _orin(cores=1024, ghz=1.02, sparse_int8=67),
        102e9,
        "NVIDIA Jetson Orin Nano developer kit user guide: 67 sparse INT8 and 102 GB/s, which its mode MAXN SUPER has "
        "at 1.02 GHz; data sheet DS-11105 for the cores",
        boards=("p3767-0003", "p3767-0005"),
    ),
    GpuPeaks(
        "Orin NX",
        r"\bOrin\b",
        _orin(cores=1024, ghz=1.173, sparse_int8=77),
        102e9,
        "NVIDIA Jetson Orin NX data sheet DS-10712: cores and 102 GB/s, for 8 and for 16 GB; 1.173 GHz in MAXN SUPER, "
        "and 157 sparse INT8 of which its two DLAs have 80",
        boards=("p3767-0000", "p3767-0001"),
    ),
    GpuPeaks(
        "AGX Orin 32 GB",
        r"\bOrin\b",
        _orin(cores=1792, ghz=0.939, sparse_int8=108),
        204.8e9,
        "NVIDIA Jetson AGX Orin data sheet DS-10662: 108 sparse INT8 for the GPU alone, 1,792 cores at 939 MHz",
        boards=("p3701-0004",),
    ),
    GpuPeaks(
        "AGX Orin 64 GB",
        r"\bOrin\b",
        _orin(cores=2048, ghz=1.3, sparse_int8=170),
        204.8e9,
        "NVIDIA Jetson AGX Orin data sheet DS-10662: 170 sparse INT8 for the GPU alone, 2,048 cores at 1.3 GHz; the "
        "developer kit has the same GPU",
        boards=("p3701-0000", "p3701-0005"),
    ),
    GpuPeaks(
        "Thor T5000",
        r"\bThor\b",
        _peaks(fp32=8.064, fp16=258.5, int8=517),
        273e9,
        "NVIDIA Jetson Thor data sheet DS-11945, T5000; half of 1,035 sparse FP8, which is also the rate of INT8, and "
        "of 517 sparse FP16; FP32 from 2,560 cores at 1.575 GHz",
        multiprocessors=20,
    ),
)


def find_gpu(name: str, *, board: str | None = None, multiprocessors: int | None = None) -> GpuPeaks | None:
    """The entry for a GPU; None if there is none, or if it cannot be told which of several it is.

    Args:
        name: as CUDA gives it, such as "NVIDIA H100 80GB HBM3".
        board: the part number of its Jetson module, if it has one.
        multiprocessors: how many it has.
    """
    for gpu in GPU_PEAKS:
        is_board = not gpu.boards or board in gpu.boards
        has_all = gpu.multiprocessors in (None, multiprocessors)
        if re.search(gpu.device, name) and is_board and has_all:
            return gpu
    return None
