"""What is installed, and what is imported."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_scoring_path_imports_neither_torch_nor_tensorrt_nor_reads_dicom_itself(center_bundle, radiographs):
    code = """
import sys
from cxr_trt.api import Engine, find_files, score
import cxr_trt.cli, cxr_trt.commands.doctor, cxr_trt.commands.score
with Engine(sys.argv[1]) as engine:
    assert len(list(score(engine, find_files([sys.argv[2]]).sources))) == 1
print(sorted({"torch", "torchvision", "tensorrt", "tensorrt_rtx", "cuda", "pycuda", "safetensors",
    "highdicom", "pydicom"} & set(sys.modules)))
"""
    arguments = [sys.executable, "-c", code, center_bundle, radiographs / "RG1_UNCR.dcm"]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_imports_nothing_heavy():
    code = "import sys, cxr_trt.cli; print(sorted({'numpy', 'cv2', 'onnx', 'openvino', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_wheel_installs_only_cxr_trt(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"cxr_trt", "cxr_trt-0.1.0.dist-info"}
    assert "cxr_trt/models/demo.onnx" in names
    assert "cxr_trt/py.typed" in names
