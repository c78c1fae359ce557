"""What a measurement depends on besides the program: the machine and the versions of packages."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cxr_trt.processors import processors

# Instruction sets that matter for an engine's speed, above all in int8, by their names in Linux's /proc/cpuinfo.
INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}


def describe_machine() -> str:
    """One line: processor, instruction sets, number of usable processors, system, and any limit set for oneDNN."""
    count = processors()
    sets = instruction_sets()
    found = f"{processor()}{f' ({sets})' if sets else ''}, {count} processors, {platform.system()} {platform.machine()}"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{found}, oneDNN limited to {limit}" if limit else found


def processor() -> str:
    """The processor's name according to Linux, or else according to Python."""
    return _cpuinfo("model name") or platform.processor() or "unknown processor"


def instruction_sets() -> str:
    """Those of INSTRUCTION_SETS that the processor has, as a comma-separated list."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return ", ".join(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def peak_memory() -> float:
    """The peak memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python and of those packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
