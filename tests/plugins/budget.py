"""What the compiled kernel takes from a GPU, read from ptxas and the disassembly: plugins/BUDGET.md.

python tests/plugins/budget.py [ARCHITECTURE ...]    only these, such as 75 120; prints rows and writes no file then
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolchain import PLUGINS, compile_for_cpu

TABLE = PLUGINS / "BUDGET.md"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)

# CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability": resident threads and shared memory
# (KiB) of a multiprocessor. All of them have 65,536 registers.
THREADS = {75: 1024, 80: 2048, 86: 1536, 87: 1536, 89: 1536, 90: 2048, 100: 2048, 110: 1536, 120: 1536}
SHARED_KIB = {75: 64, 80: 164, 86: 100, 87: 164, 89: 100, 90: 228, 100: 228, 110: 228, 120: 100}
REGISTERS_OF_SM = 65_536

MOST_REGISTERS = {8: 64, 32: 168, 128: 255}  # a thread's, by the keys it holds
BLOCK = 128  # threads
FINDINGS, CROPS, SIDE = 14, 10, 14  # maps of an X-ray's crop, crops, cells along a side of a map
STAGE = BLOCK // 32 * SIDE * SIDE * 4  # bytes of shared memory of a block that pools windows of such maps
IMAGES = (1, 32, 256)


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


def nvdisasm() -> str | None:
    """The disassembler, on PATH or from the wheel."""
    wheels = [Path(folder) / "nvidia" / "cu13" / "bin" for folder in sys.path]
    return shutil.which("nvdisasm") or next((str(f / "nvdisasm") for f in wheels if (f / "nvdisasm").exists()), None)


def compiler() -> str:
    """Nvcc's version, which the numbers depend on."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V(\d+\.\d+\.\d+)", text)[1]


def measure(arch: int) -> list[Kernel]:
    """The kernels for compute capability arch / 10, in the order of their kind, type and size."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        command = ["nvcc", "-std=c++17", f"-I{PLUGINS}", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v"]
        command += [str(PLUGINS / "max_min_pool.cu"), "-o", str(cubin)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        code = subprocess.run([nvdisasm(), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    instructions = dict(re.findall(r"\.section\s+\.text\.(\w+),(.*?)(?=\.section\s|\Z)", code, re.S))
    kernels = []
    for block in said.split("Compiling entry function '")[1:]:
        name = block.split("'")[0]
        kind, cell, keys = re.search(r"score_(maps|windows)I(f|6__half)Li(\d+)E", name).groups()
        text = instructions[name]
        kernels.append(
            Kernel(
                kind,
                "float32" if cell == "f" else "float16",
                int(keys),
                int(re.search(r"Used (\d+) registers", block)[1]),
                int(re.search(r"(\d+) bytes stack frame", block)[1]),
                sum(int(number) for number in re.findall(r"(\d+) bytes smem", block)),
                len(re.findall(r"\bLDG\.E\.128\b", text)),
                len(re.findall(r"\b(?:LDL|STL)\b", text)),
                len(re.findall(r"\b(?:ATOM|ATOMG|ATOMS|RED|REDG)\b", text)),
            )
        )
    return sorted(kernels, key=lambda kernel: (kernel.kind, kernel.cell, kernel.keys))


def problems(kernel: Kernel) -> list[str]:
    """What of a kernel is over the budget."""
    found = []
    if kernel.stack or kernel.local:
        found.append(f"{kernel.stack} bytes of local memory and {kernel.local} instructions on it")
    if kernel.registers > MOST_REGISTERS[kernel.keys]:
        found.append(f"{kernel.registers} registers, more than {MOST_REGISTERS[kernel.keys]}")
    if kernel.shared:
        found.append(f"{kernel.shared} bytes of static shared memory")
    if not kernel.wide_loads:
        found.append("no 16-byte loads")
    if kernel.atomics:
        found.append(f"{kernel.atomics} atomics")
    return found


class Occupancy:
    """NVIDIA's calculator, compiled in a folder of its own."""

    def __init__(self, folder: Path):
        self.library = ctypes.CDLL(str(compile_for_cpu("occupancy.cpp", folder / "o.so", "-fPIC", "-shared")))

    def percent(self, arch: int, kernel: Kernel) -> int:
        """Of the threads that a multiprocessor can hold, those that this kernel lets it hold, rounded down."""
        shared = STAGE if kernel.kind == "windows" else 0
        limits = THREADS[arch], REGISTERS_OF_SM, SHARED_KIB[arch] << 10
        blocks = self.library.resident_blocks(arch, *limits, BLOCK, kernel.registers, shared)
        if blocks < 1:
            raise ValueError(f"the calculator gives {blocks} blocks for {kernel} and compute capability {arch}")
        return 100 * blocks * BLOCK // THREADS[arch]


def row(arch: int, kernels: list[Kernel], occupancy: Occupancy) -> str:
    """A line of the table: registers and occupancy of each kernel."""
    cells = [f"{kernel.registers}, {occupancy.percent(arch, kernel)} %" for kernel in kernels]
    return f"| {arch // 10}.{arch % 10} | " + " | ".join(cells) + " |"


def floor(images: int, cell_bytes: int) -> int:
    """Bytes that pooling the whole maps of so many images must move: each cell read once, each score written once."""
    return images * CROPS * FINDINGS * (SIDE * SIDE * cell_bytes + 4)


WORDS = """
# What the kernel takes

Made by `make plugin-budget` from what the compiler says of its code; nothing here was measured on a GPU. Compiler: nvcc
{compiler}.

For each compute capability and kernel: registers of a thread, and occupancy. The number in a kernel's name is how many
keys a lane holds: 8 for maps or windows up to 256 cells, 32 up to 1,024, 128 up to 4,096.

{budget}

All of them: no spills and no local memory, no atomics, no static shared memory, 16-byte loads present, and at most
{most} registers at 8, 32 and 128 keys a lane. `tests/plugins/test_budget.py` holds the code to this.

Occupancy is by NVIDIA's calculator (`cuda_occupancy.h`), for blocks of {block} threads and maps of {side} x {side}
cells; kernels for windows then use {stage:,} bytes of shared memory a block. Threads and shared memory of a
multiprocessor are those of the CUDA C++ Programming Guide 13.0, Technical Specifications per Compute Capability.

## The byte floor

Arithmetic, not a measurement: the bytes that pooling whole maps must move through device memory, each cell read once
and each float32 score written once, for {crops} crops of {findings} maps of {side} x {side} cells. Divided by a GPU's
memory bandwidth they are a time that no kernel can beat, unless the maps are still in its cache.

{floors}
"""


def text(measured: dict[int, list[Kernel]], occupancy: Occupancy) -> str:
    """BUDGET.md."""
    kernels = next(iter(measured.values()))
    heads = [f"{kernel.kind} {kernel.cell} {kernel.keys}" for kernel in kernels]
    floors = [f"| {n} | {n * CROPS * FINDINGS:,} | {floor(n, 4):,} | {floor(n, 2):,} |" for n in IMAGES]
    return WORDS.lstrip().format(
        compiler=compiler(),
        budget=table(["", *heads], [row(arch, kernels, occupancy) for arch, kernels in measured.items()]),
        most=", ".join(map(str, MOST_REGISTERS.values())),
        block=BLOCK,
        side=SIDE,
        stage=STAGE,
        crops=CROPS,
        findings=FINDINGS,
        floors=table(["X-rays", "maps", "bytes, float32 maps", "bytes, float16 maps"], floors),
    )


def table(heads: list[str], rows: list[str]) -> str:
    """A table in Markdown."""
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows])


def main() -> None:
    """Measure, print what is over the budget, and write the table if all architectures were measured."""
    chosen = [int(arch) for arch in sys.argv[1:]] or ARCHITECTURES
    with tempfile.TemporaryDirectory() as folder:
        occupancy = Occupancy(Path(folder))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            measured = dict(zip(chosen, pool.map(measure, chosen), strict=True))
        for arch, kernels in measured.items():
            print(row(arch, kernels, occupancy))
            for kernel in kernels:
                for problem in problems(kernel):
                    print(f"  {kernel.kind} {kernel.cell} {kernel.keys}: {problem}")
        if not sys.argv[1:]:
            TABLE.write_text(text(measured, occupancy))
        if any(problems(kernel) for kernels in measured.values() for kernel in kernels):
            sys.exit(1)


if __name__ == "__main__":
    main()
