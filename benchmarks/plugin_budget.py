"""What the compiled CUDA kernel takes from each GPU, read from ptxas and the disassembly: nothing runs on a GPU."""

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from toolchain import PLUGINS, compile_for_cpu

from benchmarks.study import Result
from cxr_trt.markdown import markdown_table
from cxr_trt.processors import processors

PACKAGES = ("nvidia-cuda-nvdisasm",)
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)

# CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability": resident threads and shared memory
# of a multiprocessor. All of them have 65,536 registers.
SM_THREADS = {75: 1024, 80: 2048, 86: 1536, 87: 1536, 89: 1536, 90: 2048, 100: 2048, 110: 1536, 120: 1536}
SM_SHARED_KIB = {75: 64, 80: 164, 86: 100, 87: 164, 89: 100, 90: 228, 100: 228, 110: 228, 120: 100}
SM_REGISTERS = 65_536

MAX_REGISTERS = {8: 64, 32: 168, 128: 255}  # of a thread, by the keys that a lane holds
BLOCK_THREADS = 128
FINDINGS, CROPS, MAP_SIDE = 14, 10, 14  # maps of an X-ray's crop, crops, cells along a side of a map
STAGE_BYTES = (
    BLOCK_THREADS // 32 * MAP_SIDE * MAP_SIDE * 4
)  # of shared memory in a block that pools windows of such maps
IMAGE_COUNTS = (1, 32, 256)
TEXT = """\
# What the kernel takes from a GPU

**{headline}** Nothing here was measured on a GPU: it is what nvcc {compiler} says about its code.

For each compute capability and kernel: registers per thread, and occupancy. The number in a kernel's name is how many
keys a lane holds: 8 for maps or windows of up to 256 cells, 32 up to 1,024, 128 up to 4,096.

{budget}

The budget, which `tests/plugins/test_budget.py` holds the code to: no spills and no local memory, no atomics, no static
shared memory, loads of 16 bytes, and at most {most} registers with 8, 32 and 128 keys per lane.

Occupancy comes from NVIDIA's calculator (`cuda_occupancy.h`), for blocks of {block} threads and maps of {side} x
{side} cells; kernels for windows then use {stage:,} bytes of shared memory per block. Threads and shared memory of a
multiprocessor are those of the CUDA C++ Programming Guide 13.0, Technical Specifications per Compute Capability.

## The byte floor

Arithmetic, not a measurement: the bytes that pooling whole maps must move through device memory, each cell read once
and each float32 score written once, for {crops} crops of {findings} maps of {side} x {side} cells. Divided by the
memory bandwidth of a GPU, they are a time that no kernel can beat, unless the maps are still in its cache.

{floors}
"""


@dataclass(frozen=True)
class Kernel:
    """A compiled instance of a kernel.

    Attributes:
        kind: maps or windows.
        cell: float32 or float16.
        keys: Keys of a lane, at most.
        registers: Of a thread.
        stack: Bytes of local memory of a thread, spills among them.
        shared: Bytes of static shared memory of a block.
        wide_loads: Loads of 16 bytes from device memory, as the disassembly has them.
        local: Instructions on local memory.
        atomics: Atomic instructions.
    """

    kind: str
    cell: str
    keys: int
    registers: int
    stack: int
    shared: int
    wide_loads: int
    local: int
    atomics: int


def find_nvdisasm() -> str | None:
    """The disassembler, on PATH or from the wheel."""
    wheels = [Path(folder) / "nvidia" / "cu13" / "bin" for folder in sys.path]
    return shutil.which("nvdisasm") or next((str(f / "nvdisasm") for f in wheels if (f / "nvdisasm").exists()), None)


def compiler_version() -> str:
    """Nvcc's version, which the numbers depend on."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return _find(r"V(\d+\.\d+\.\d+)", text)[0]


def _find(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of the first match."""
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"{pattern!r} is not in the output of the compiler: {text[:500]}")
    return found.groups()


def compile_kernels(arch: int) -> list[Kernel]:
    """The kernels for compute capability arch / 10, in the order of their kind, type and size."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        command = ["nvcc", "-std=c++17", f"-I{PLUGINS}", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v"]
        command += [str(PLUGINS / "max_min_pool.cu"), "-o", str(cubin)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        code = subprocess.run(
            [find_nvdisasm() or "nvdisasm", "-c", str(cubin)], capture_output=True, text=True, check=True
        ).stdout
    instructions = dict(re.findall(r"\.section\s+\.text\.(\w+),(.*?)(?=\.section\s|\Z)", code, re.S))
    kernels = []
    for block in said.split("Compiling entry function '")[1:]:
        name = block.split("'")[0]
        kind, cell, keys = _find(r"score_(maps|windows)I(f|6__half)Li(\d+)E", name)
        text = instructions[name]
        kernels.append(
            Kernel(
                kind,
                "float32" if cell == "f" else "float16",
                int(keys),
                int(_find(r"Used (\d+) registers", block)[0]),
                int(_find(r"(\d+) bytes stack frame", block)[0]),
                sum(int(number) for number in re.findall(r"(\d+) bytes smem", block)),
                len(re.findall(r"\bLDG\.E\.128\b", text)),
                len(re.findall(r"\b(?:LDL|STL)\b", text)),
                len(re.findall(r"\b(?:ATOM|ATOMG|ATOMS|RED|REDG)\b", text)),
            )
        )
    return sorted(kernels, key=lambda kernel: (kernel.kind, kernel.cell, kernel.keys))


def over_budget(kernel: Kernel) -> list[str]:
    """What of a kernel is over the budget."""
    found = []
    if kernel.stack or kernel.local:
        found.append(f"{kernel.stack} bytes of local memory and {kernel.local} instructions on it")
    if kernel.registers > MAX_REGISTERS[kernel.keys]:
        found.append(f"{kernel.registers} registers, more than {MAX_REGISTERS[kernel.keys]}")
    if kernel.shared:
        found.append(f"{kernel.shared} bytes of static shared memory")
    if not kernel.wide_loads:
        found.append("no 16-byte loads")
    if kernel.atomics:
        found.append(f"{kernel.atomics} atomics")
    return found


class Occupancy:
    """NVIDIA's calculator, compiled in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.library = ctypes.CDLL(str(compile_for_cpu("occupancy.cpp", folder / "o.so", "-fPIC", "-shared")))

    def percent(self, arch: int, kernel: Kernel) -> int:
        """Of the threads that a multiprocessor can hold, those that this kernel lets it hold, rounded down."""
        shared = STAGE_BYTES if kernel.kind == "windows" else 0
        limits = SM_THREADS[arch], SM_REGISTERS, SM_SHARED_KIB[arch] << 10
        blocks: int = self.library.resident_blocks(arch, *limits, BLOCK_THREADS, kernel.registers, shared)
        if blocks < 1:
            raise ValueError(f"the calculator gives {blocks} blocks for {kernel} and compute capability {arch}")
        return 100 * blocks * BLOCK_THREADS // SM_THREADS[arch]


def floor_bytes(images: int, cell_bytes: int) -> int:
    """What pooling the whole maps of so many images must move: each cell read once, each score written once."""
    return images * CROPS * FINDINGS * (MAP_SIDE * MAP_SIDE * cell_bytes + 4)


def capability(arch: int) -> str:
    """As NVIDIA writes it, such as 7.5."""
    return f"{arch // 10}.{arch % 10}"


def kernel_name(kernel: Result) -> str:
    """Of a kernel in a result."""
    return f"{kernel['kind']} {kernel['cell']} {kernel['keys']}"


@click.command()
@click.option("--arch", "chosen", type=click.Choice(ARCHITECTURES), multiple=True, help="For a trial: only these.")
def measure(chosen: tuple[int, ...]) -> Result:
    """Compile the kernel for every architecture."""
    architectures = chosen or ARCHITECTURES
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processors()) as pool:
        occupancy = Occupancy(Path(folder))
        compiled = dict(zip(architectures, pool.map(compile_kernels, architectures), strict=True))
        kernels = {capability(arch): describe(arch, found, occupancy) for arch, found in compiled.items()}
    return {"compiler": compiler_version(), "kernels": kernels}


def describe(arch: int, kernels: list[Kernel], occupancy: Occupancy) -> list[Result]:
    """What a result says about the kernels for an architecture."""
    return [{**asdict(kernel), "occupancy_percent": occupancy.percent(arch, kernel)} for kernel in kernels]


def problems(result: Result) -> list[str]:
    """What is over the budget."""
    return [
        f"compute capability {arch}, {kernel_name(own)}: {sentence}"
        for arch, kernels in result["kernels"].items()
        for own in kernels
        for sentence in over_budget(
            Kernel(**{name: value for name, value in own.items() if name != "occupancy_percent"})
        )
    ]


def page(result: Result) -> str:
    """The page of a result."""
    kernels: dict[str, list[Result]] = result["kernels"]
    rows = [
        (arch, *(f"{own['registers']}, {own['occupancy_percent']} %" for own in found))
        for arch, found in kernels.items()
    ]
    floors = [
        (str(n), f"{n * CROPS * FINDINGS:,}", f"{floor_bytes(n, 4):,}", f"{floor_bytes(n, 2):,}") for n in IMAGE_COUNTS
    ]
    over = len(problems(result))
    count = sum(len(found) for found in kernels.values())
    return TEXT.format(
        headline=f"All {count} kernels stay within their budget." if not over else f"{over} are over the budget.",
        compiler=result["compiler"],
        budget=markdown_table(("", *map(kernel_name, next(iter(kernels.values())))), rows),
        most=", ".join(map(str, MAX_REGISTERS.values())),
        block=BLOCK_THREADS,
        side=MAP_SIDE,
        stage=STAGE_BYTES,
        crops=CROPS,
        findings=FINDINGS,
        floors=markdown_table(("X-rays", "maps", "bytes, float32 maps", "bytes, float16 maps"), floors),
    )
