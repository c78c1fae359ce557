"""Which CUDA the driver and the installed packages are for, and what to install so that they fit.

A driver runs what was made for its own major version of CUDA and for older ones, but not for a newer one.
"""

import ctypes
import re
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from packaging.version import Version

DRIVER_LIBRARY = "libcuda.so.1"
NO_DRIVER = "no NVIDIA driver was found: install it, or give the container access to the GPUs (docker run --gpus all)"
JETSON_FILE = Path("/etc/nv_tegra_release")
EXTRAS_CUDA = (13, 12)  # the major versions of CUDA that there are extras for
PER_CUDA = re.compile(r"(tensorrt|tensorrt-rtx)-cu(\d+)(-libs)?")  # packages for one major version of CUDA
JETSON_INSTALL = (
    "sudo apt-get install python3-libnvinfer && python3 -m venv --system-site-packages .venv && "
    ".venv/bin/pip install 'cxr-trt[jetson]'"
)


class CudaVersion(NamedTuple):
    """A version of CUDA, such as 12.6."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def driver_cuda() -> CudaVersion | None:
    """The newest CUDA that the driver supports; None without a driver."""
    number = ctypes.c_int()
    try:
        if ctypes.CDLL(DRIVER_LIBRARY).cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return CudaVersion(number.value // 1000, number.value % 1000 // 10)


def installed_packages() -> dict[str, str]:
    """The installed Python packages with their versions, by names in lower case with hyphens."""
    return {re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version for found in distributions()}


def cuda_of(installed: Mapping[str, str]) -> dict[str, int]:
    """The major version of CUDA of those packages of `installed_packages` that tell it.

    TensorRT from the system's packages, as on a Jetson, does not tell; it came with its driver.
    """
    found = {match[1]: int(match[2]) for name in installed if (match := PER_CUDA.fullmatch(name))}
    if bindings := installed.get("cuda-bindings"):
        found["cuda-bindings"] = Version(bindings).major
    return found


def why_too_new(backend: str, installed: Mapping[str, str], driver: CudaVersion | None) -> str | None:
    """None if the driver runs what a backend uses of the installed packages, or if there is no driver.

    Otherwise, one sentence that names the command which makes them fit.
    """
    if driver is None:
        return None
    found = cuda_of(installed)
    too_new = {name: found[name] for name in (backend, "cuda-bindings") if found.get(name, 0) > driver.major}
    if not too_new:
        return None
    what = " and ".join(f"{name} is for CUDA {major}" for name, major in too_new.items())
    matches = {name: match for name in installed if (match := PER_CUDA.match(name))}
    removed = sorted(name for name, match in matches.items() if int(match[2]) > driver.major)
    if removed:
        removed += sorted({match[1] for match in matches.values()} & set(installed))
    remove = f"pip uninstall --yes {' '.join(removed)} && " if removed else ""
    return f"{what}, but the driver supports CUDA {driver}: run {remove}{install_command(backend, driver)}"


def is_jetson() -> bool:
    """Whether this machine is a Jetson, whose TensorRT comes with JetPack."""
    return JETSON_FILE.exists()


def install_command(backend: str, driver: CudaVersion | None) -> str:
    """What installs a backend ("tensorrt", "tensorrt-rtx" or "cuda") on this machine."""
    if is_jetson():
        return JETSON_INSTALL
    major = EXTRAS_CUDA[0] if driver is None else min(driver.major, EXTRAS_CUDA[0])
    return f"pip install 'cxr-trt[{backend}-cu{major}]'"
