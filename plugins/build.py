"""Builds the TensorRT plugin in this folder and downloads the tools that are missing; `make plugin` runs it.

The system's CMake, nvcc and TensorRT headers are used if they are installed. nvcc is looked up in CUDA_HOME and
CUDA_PATH, on PATH and in /usr/local/cuda, and the headers in TENSORRT_ROOT and the system's include folders. Whatever
is missing is downloaded from PyPI, with pinned versions, into the build folder, where it stays for the next build.

For another processor than this machine's, as `make wheel PROCESSOR=aarch64` does it, this needs that processor's g++
(Debian's g++-aarch64-linux-gnu); nvcc, and CUDA's runtime for the other processor, then always come from PyPI.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from cxr_trt.engine.gpu.cuda_versions import driver_cuda
from cxr_trt.engine.gpu.tensorrt_plugin import INSTALLED_PLUGIN, PLUGIN_FILE

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "plugin"
LIBRARY = PLUGIN_FILE
INSTALLED = INSTALLED_PLUGIN  # where cxr-trt looks for it, also if it is installed elsewhere than in this tree

CMAKE = "cmake==3.31.6"
MIN_CMAKE = (3, 23)
NVCC_CUDA = 13
NVCC = ("nvidia-cuda-nvcc==13.0.88", "nvidia-cuda-crt==13.0.88", "nvidia-nvvm==13.0.88")  # for this machine
CUDA = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cccl==13.0.85")  # for the processor that is built for
PROCESSORS = ("x86_64", "aarch64")
# This package contains the headers of TensorRT 10.14.1 (Apache-2.0); nothing else in it is used.
HEADERS = "kernel-lens==2.0.1"
HEADERS_SHA256 = "07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0"
HEADERS_FOLDER = "kernel_lens/include/tensorrt/"
HEADER = "NvInferRuntime.h"


def main() -> None:
    """Build with the options of the command line, and print the path of the library."""
    parser = argparse.ArgumentParser(description="Build the TensorRT plugin.")
    parser.add_argument(
        "--architectures", help="CUDA architectures in CMake's form, such as 75-real;120-virtual. Default: 7.5 to 12.0."
    )
    parser.add_argument(
        "--processor", choices=PROCESSORS, default=platform.machine(), help="Default: that of this machine."
    )
    parser.add_argument("--build", type=Path, default=BUILD, help="Folder for intermediate files.")
    parser.add_argument("--output", type=Path, default=INSTALLED, help="Where to write the library.")
    options = parser.parse_args()
    print(build(options.build, options.output, options.architectures, options.processor))


def build(folder: Path, output: Path, architectures: str | None = None, processor: str = platform.machine()) -> Path:
    """Configure and compile in `folder`, and copy the library to `output`. This needs a C++ compiler and make."""
    is_foreign = processor != platform.machine()
    nvcc = (
        fetch_nvcc(BUILD / f"cuda-{processor}", processor) if is_foreign else find_nvcc() or fetch_nvcc(BUILD / "cuda")
    )
    headers = find_headers() or fetch_headers(BUILD / "tensorrt")
    cmake = find_cmake() or fetch_cmake(BUILD / "cmake")
    print(f"CMake: {cmake}; nvcc: {nvcc}; TensorRT's headers: {headers}", flush=True)
    settings = {"CMAKE_CUDA_COMPILER": nvcc, "TENSORRT_INCLUDE_DIR": headers}
    settings |= {"CMAKE_CUDA_ARCHITECTURES": architectures} if architectures else {"NVCC": nvcc}
    settings |= foreign_compiler(processor) if is_foreign else {}
    run(cmake, "-S", HERE, "-B", folder / "cmake-build", *(f"-D{name}={value}" for name, value in settings.items()))
    run(cmake, "--build", folder / "cmake-build", "--target", "cxr_trt_plugin")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Replace the file instead of overwriting it, because a process may have it loaded.
    partial = output.with_suffix(".partial")
    shutil.copy(folder / "cmake-build" / LIBRARY, partial)
    return partial.replace(output)


def find_nvcc() -> Path | None:
    """The nvcc that is installed, if any."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    on_path = shutil.which("nvcc")
    candidates = [*(Path(home, "bin", "nvcc") for home in homes), *([Path(on_path)] if on_path else [])]
    candidates.append(Path("/usr/local/cuda/bin/nvcc"))
    return next((nvcc for nvcc in candidates if nvcc.is_file()), None)


def foreign_compiler(processor: str) -> dict[str, str]:
    """CMake's settings for compiling for another processor."""
    compiler = f"{processor}-linux-gnu-g++"
    if shutil.which(compiler) is None:
        raise SystemExit(
            f"{compiler} is not installed: run apt-get install g++-{processor.replace('_', '-')}-linux-gnu"
        )
    return {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": processor,
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_CUDA_HOST_COMPILER": compiler,
    }


def find_cmake() -> Path | None:
    """The CMake that is installed, if any is new enough: Ubuntu 22.04, and with it JetPack 6, has 3.22."""
    on_path = shutil.which("cmake")
    if not on_path:
        return None
    text = subprocess.run([on_path, "--version"], check=True, capture_output=True, text=True).stdout
    version = tuple(map(int, re.findall(r"\d+", text)[:2]))
    return Path(on_path) if version >= MIN_CMAKE else None


def find_headers() -> Path | None:
    """The folder of the TensorRT headers that are installed, if any."""
    folders = [Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu"), Path("/usr/local/include")]
    if root := os.environ.get("TENSORRT_ROOT"):
        folders.insert(0, Path(root) / "include")
    return next((folder for folder in folders if (folder / HEADER).is_file()), None)


def fetch_nvcc(folder: Path, processor: str = platform.machine()) -> Path:
    """Download nvcc from PyPI, which has it for CUDA 13, and what its programs for a processor are linked with."""
    driver = driver_cuda()
    if driver and driver.major < NVCC_CUDA and processor == platform.machine():
        raise SystemExit(
            f"the driver supports CUDA {driver}, and PyPI has nvcc for CUDA {NVCC_CUDA} only: install the toolkit of "
            f"CUDA {driver.major} and name it in CUDA_HOME"
        )
    home = folder / "nvidia" / "cu13"
    if not (home / "lib64").exists():
        pip("install", "--no-deps", "--upgrade", "--target", folder, *NVCC)
        foreign = ("--only-binary", ":all:", "--platform", f"manylinux2014_{processor}")
        pip("install", "--no-deps", "--upgrade", "--target", folder / "runtime", *foreign, *CUDA)
        shutil.copytree(folder / "runtime" / "nvidia", folder / "nvidia", dirs_exist_ok=True)
        for program in (home / "bin").iterdir():  # wheels do not keep all permissions
            program.chmod(0o755)
        (home / "lib64").symlink_to("lib")  # nvcc looks for libraries there
    return home / "bin" / "nvcc"


def fetch_cmake(folder: Path) -> Path:
    """Download CMake from PyPI."""
    cmake = folder / "cmake" / "data" / "bin" / "cmake"
    if not cmake.is_file():
        pip("install", "--no-deps", "--target", folder, CMAKE)
    return cmake


def fetch_headers(folder: Path) -> Path:
    """Download TensorRT's headers from PyPI, in the one package file that is known to contain them."""
    if not (folder / HEADER).is_file():
        pip("download", "--no-deps", "--no-binary", ":none:", "--dest", folder, HEADERS)
        (wheel,) = folder.glob("*.whl")
        if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != HEADERS_SHA256:
            raise SystemExit(f"{wheel}: its sha256 is {found}, not {HEADERS_SHA256}; set TENSORRT_ROOT instead")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(HEADERS_FOLDER):
                    (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


def pip(*arguments: object) -> None:
    """Run this interpreter's pip."""
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def run(*command: object) -> None:
    """Run a program. If it fails, the build ends."""
    try:
        subprocess.run([str(part) for part in command], check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(error.cmd[:4])} ... failed with exit code {error.returncode}") from None


if __name__ == "__main__":
    main()
