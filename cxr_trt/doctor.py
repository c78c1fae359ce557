"""What this machine can build and run."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.tensorrt_plugin import NOT_BUILT, find_plugin
from cxr_trt.errors import UsageError
from cxr_trt.report.terminal import show_facts, show_table

PACKAGES = {
    "onnx": None,
    "onnxruntime": None,
    "openvino": None,
    "opencv-python-headless": None,
    "pydicom": None,
    "python-gdcm": None,
    "pylibjpeg-openjpeg": None,
    "pyarrow": None,
    "torch": "pip install 'cxr-trt[export]'",
    "torchvision": "pip install 'cxr-trt[export]'",
    "safetensors": "pip install 'cxr-trt[export]'",
    "tensorrt": "pip install 'cxr-trt[tensorrt]'",
    "tensorrt-rtx": "pip install 'cxr-trt[tensorrt-rtx]'",
    "cuda-core": "pip install 'cxr-trt[tensorrt]'",
    "highdicom": "pip install 'cxr-trt[dicom-results]' (optional)",
    "pycuda": "pip install 'cxr-trt[pycuda]' (optional)",
}
"""Each package, and what installs it if it is not part of the base installation."""

BASE = "pip install --force-reinstall cxr-trt"


def report() -> None:
    """Print machine, packages and backends to standard output."""
    show_facts(
        {
            "cxr-trt": version("cxr-trt"),
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "TensorRT plugin": _plugin(),
        }
    )
    packages = [(name, _version(name), command) for name, command in PACKAGES.items()]
    rows = [(name, found or "-", "" if found else command or BASE) for name, found, command in packages]
    show_table(("package", "version", "to install it"), rows)
    backends = [
        (name, backend.why_not_build() or "yes", backend.why_not_run() or "yes") for name, backend in BACKENDS.items()
    ]
    show_table(("backend", "builds here", "runs here"), backends)


def _plugin() -> str:
    """Where the pooling's plugin is, or what becomes of an engine without it."""
    try:
        plugin = find_plugin()
    except UsageError as error:
        return str(error)
    return f"{plugin.path}, sha256 {plugin.sha256[:16]}" if plugin else NOT_BUILT


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
