"""What is installed, and what is imported."""

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cxr_trt

ROOT = Path(__file__).parents[1]


def test_the_scoring_path_imports_nothing_that_it_can_do_without(center_bundle, radiographs):
    code = """
import sys
import cxr_trt, cxr_trt.cli, cxr_trt.commands.doctor, cxr_trt.commands.score
with cxr_trt.Engine(sys.argv[1]) as engine:
    assert len(list(engine.score(sys.argv[2]))) == 1
print(sorted({"torch", "torchvision", "tensorrt", "tensorrt_rtx", "cuda", "pycuda", "safetensors",
    "highdicom", "pydicom", "onnx.reference", "pyarrow"} & set(sys.modules)))
"""
    arguments = [sys.executable, "-c", code, center_bundle, radiographs / "RG1_UNCR.dcm"]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_score_command_starts_decoders_before_it_imports_what_opens_engines():
    """Decoders take as long to start as an engine takes to open, so neither should wait for the other's imports."""
    code = "import sys, cxr_trt.commands.score\nprint(sorted({'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_the_package_imports_nothing_heavy():
    code = """
import sys, cxr_trt
heavy = {"torch", "onnxruntime", "openvino", "numpy", "cv2", "onnx"}
imported = {name for name, module in sys.modules.items() if module is not None}
assert not heavy & imported, heavy & imported
assert cxr_trt.Engine
assert "numpy" in sys.modules and "torch" not in sys.modules
assert all(getattr(cxr_trt, name) for name in cxr_trt.__all__)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'cxr_trt' has no attribute 'Enigne'"):
        cxr_trt.Enigne  # noqa: B018


@pytest.mark.parametrize("with_plugin", [False, True])
def test_the_wheel_installs_only_cxr_trt(tmp_path, with_plugin):
    """Git ignores the plugin that `make plugin` builds, but its wheel has it, and is for one platform."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "cxr_trt", tree / "cxr_trt", ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    if with_plugin:
        elf = b"\x7fELF" + bytes(14) + {"x86_64": b"\x3e\0", "aarch64": b"\xb7\0"}[platform.machine()]
        (tree / "cxr_trt" / "engine" / "gpu" / "libcxr_trt_plugin.so").write_bytes(elf)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, tree]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    tag = f"linux_{platform.machine()}" if with_plugin else "any"
    assert wheel.name == f"cxr_trt-0.1.0-py3-none-{tag}.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"cxr_trt", "cxr_trt-0.1.0.dist-info"}
    assert {"cxr_trt/models/edge.onnx", "cxr_trt/models/paper.onnx"} <= set(names)
    assert "cxr_trt/py.typed" in names
    assert ("cxr_trt/engine/gpu/libcxr_trt_plugin.so" in names) is with_plugin
