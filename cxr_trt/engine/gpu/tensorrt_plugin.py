"""The TensorRT plugin for the pooling: where its library is, and how builders and runtimes get it."""

import ctypes
import os
from pathlib import Path
from typing import Any, NamedTuple

from cxr_trt.engine.gpu.cuda_versions import CudaVersion
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export import pooling
from cxr_trt.hashing import hash_file

PLUGIN_VERSION = "1"  # version of the plugin's interface: attributes, inputs and outputs
PLUGIN_VARIABLE = "CXR_TRT_PLUGIN"
PLUGIN_FILE = "libcxr_trt_plugin.so"  # in a bundle, too
CUDA_SYMBOL = "cxr_trt_plugin_cuda_major"
INSTALLED_PLUGIN = Path(__file__).with_name(PLUGIN_FILE)  # `make plugin` writes it, and a wheel of `make wheel` has it
NOT_BUILT = (
    "the pooling plugin is not built: run `python plugins/build.py` in the source tree, or set "
    f"{PLUGIN_VARIABLE} to the library; without it, TensorRT pools with standard operators"
)


class Plugin(NamedTuple):
    """A plugin library, and the sha256 of its content in hexadecimal."""

    path: Path
    sha256: str

    def settings(self) -> dict[str, str]:
        """What the manifest of an engine says about its plugin."""
        return {"name": pooling.POOLING_OPERATOR, "version": PLUGIN_VERSION, "sha256": self.sha256}


def find_plugin() -> Plugin | None:
    """The library that CXR_TRT_PLUGIN names, or else the one that `make plugin` built; None if there is neither.

    Raises:
        UsageError: the library cannot be read.
    """
    variable = os.environ.get(PLUGIN_VARIABLE)
    path = Path(variable) if variable else INSTALLED_PLUGIN
    if not variable and not path.is_file():
        return None
    try:
        return Plugin(path.resolve(), hash_file(path))
    except OSError as error:
        raise UsageError(
            f"{PLUGIN_VARIABLE} is {variable}: {error.strerror}; run `make plugin`, or use --no-plugin"
        ) from error


def cuda_major(library: Path) -> int | None:
    """The major version of CUDA that a plugin library is for; None if it does not say, or cannot be loaded."""
    try:
        return ctypes.c_int32.in_dll(ctypes.CDLL(str(library)), CUDA_SYMBOL).value
    except (OSError, ValueError):
        return None


def why_not_plugin(plugin: Plugin, driver: CudaVersion | None) -> str | None:
    """None if the driver runs the plugin's kernels, as far as is known; otherwise one sentence."""
    major = cuda_major(plugin.path)
    if driver is None or major is None or major <= driver.major:
        return None
    return (
        f"the plugin {plugin.path} is for CUDA {major}, but the driver supports CUDA {driver}: build it again with "
        "CUDA_HOME naming a toolkit of that version, or use --no-plugin"
    )


def load_plugin(plugin: Plugin, registry: Any) -> None:
    """Register the library's creator in a builder's or runtime's registry, which unloads it when that ends.

    Raises:
        BackendError: this machine cannot load the library, or it has no MaxMinPool of PLUGIN_VERSION.
    """
    handle = registry.load_library(str(plugin.path))
    if handle is None or registry.get_creator(pooling.POOLING_OPERATOR, PLUGIN_VERSION, "") is None:
        raise BackendError(
            f"TensorRT cannot load the plugin {plugin.path}: build it again with `make plugin`, or use --no-plugin"
        )
