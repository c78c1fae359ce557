"""What a measurement depends on besides the program: machine and versions."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Instruction sets on which an engine's speed depends, int8 most of all, by their names in Linux's /proc/cpuinfo.
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
    """Processor, its instruction sets, how many of it this process may use, system, and what oneDNN may not use."""
    count = len(os.sched_getaffinity(0))
    sets = instruction_sets()
    found = f"{processor()}{f' ({sets})' if sets else ''}, {count} processors, {platform.system()} {platform.machine()}"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{found}, oneDNN limited to {limit}" if limit else found


def processor() -> str:
    """The processor's name as Linux gives it, else as Python does."""
    return _cpuinfo("model name") or platform.processor() or "unknown processor"


def instruction_sets() -> str:
    """Those of INSTRUCTION_SETS that the processor has."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return ", ".join(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def _cpuinfo(key: str) -> str:
    """The first value of a key in /proc/cpuinfo, or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def peak_memory() -> float:
    """The most memory that this process has had so far, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are installed, by name; and Python's."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
