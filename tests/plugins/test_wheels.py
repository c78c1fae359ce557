"""A wheel for each processor, as `make wheel` makes it: its plugin is inspected, and its host code runs, emulated.

nvcc comes from PyPI, which has it for CUDA 13. No kernel runs here.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from toolchain import PLUGINS, ROOT, TEST_SOURCES, cuda_headers

from plugins import build

PLUGIN = "cxr_trt/engine/gpu/libcxr_trt_plugin.so"
MACHINES = {"x86_64": "Advanced Micro Devices X86-64", "aarch64": "AArch64"}  # as readelf calls them
ARCHITECTURES = {"x86_64": "75-real", "aarch64": "87-real"}
OLDEST = {"GLIBC": (2, 35), "GLIBCXX": (3, 4, 30)}  # what Ubuntu 22.04, and with it JetPack 6, has
CREATOR = "1 creator, PLUGIN CREATOR_V3ONE 1.0: k_max=int32 k_min=int32 alpha=float32 windows=int32"


def readelf(option: str, library: Path) -> str:
    return subprocess.run(["readelf", option, "-W", library], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=build.PROCESSORS)
def wheel(request, tmp_path_factory):
    """The processor and the wheel, with GPU code for one architecture, which is not optimised."""
    if request.param == platform.machine():
        needed = ["g++", "make"]
    else:
        needed = [f"{request.param}-linux-gnu-g++", f"qemu-{request.param}", "make"]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp(request.param)
    library = folder / "plugin.so"
    options = ["--processor", request.param, "--architectures", ARCHITECTURES[request.param]]
    command = [sys.executable, PLUGINS / "build.py", *options, "--build", folder, "--output", library]
    flags = {"NVCC_APPEND_FLAGS": "-Xcicc -O0 -Xptxas -O0"}
    subprocess.run(command, check=True, env=os.environ | flags)
    tree = folder / "tree"
    shutil.copytree(ROOT / "cxr_trt", tree / "cxr_trt", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, tree]
    subprocess.run(command, check=True, env=os.environ | {"CXR_TRT_WHEEL_PLUGIN": str(library)})
    (made,) = folder.glob("*.whl")
    return request.param, made


@pytest.mark.slow
@pytest.mark.long
def test_a_wheel_has_the_plugin_of_its_processor(wheel, tmp_path):
    wanted, path = wheel
    assert path.name.endswith(f"-py3-none-linux_{wanted}.whl")
    with zipfile.ZipFile(path) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
        assert f"Tag: py3-none-linux_{wanted}" in archive.read(metadata).decode()
        library = Path(archive.extract(PLUGIN, tmp_path))
    assert MACHINES[wanted] in readelf("-h", library)
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf("-d", library))
    assert needed
    assert not [name for name in needed if "nvinfer" in name or "cudart" in name]
    assert ".nv_fatbin" in readelf("-S", library)
    symbols = readelf("--dyn-syms", library)
    assert all(name in symbols for name in ("getCreators", "setLoggerFinder", "cxr_trt_plugin_cuda_major"))
    versions = re.findall(r"\b(GLIBC|GLIBCXX)_([\d.]+)", readelf("-V", library))
    newest = {kind: max(tuple(map(int, v.split("."))) for k, v in versions if k == kind) for kind in OLDEST}
    assert all(newest[kind] <= oldest for kind, oldest in OLDEST.items()), newest


@pytest.mark.slow
@pytest.mark.long
def test_its_host_code_makes_a_plugin(wheel, tmp_path):
    wanted, path = wheel
    with zipfile.ZipFile(path) as archive:
        library = Path(archive.extract(PLUGIN, tmp_path))
    is_foreign = wanted != platform.machine()
    compiler = f"{wanted}-linux-gnu-g++" if is_foreign else "g++"
    emulator = [f"qemu-{wanted}", "-L", f"/usr/{wanted}-linux-gnu"] if is_foreign else []
    headers = build.find_headers() or build.fetch_headers(build.BUILD / "tensorrt")
    fetched = build.BUILD / f"cuda-{wanted}" / "nvidia" / "cu13" / "include"
    includes = ["-isystem", headers, "-isystem", fetched if is_foreign else cuda_headers() or fetched]
    driver = tmp_path / "driver"
    subprocess.run(
        [compiler, "-std=c++17", *includes, TEST_SOURCES / "plugin_driver.cpp", "-o", driver, "-ldl"], check=True
    )
    command = [*emulator, driver, library, "k_max=int32:2", "k_min=int32:1", "alpha=float32:0.7"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == CREATOR
    assert said[-1] == "plugin PLUGIN"
