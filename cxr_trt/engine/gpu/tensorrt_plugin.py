"""The TensorRT plugin for the pooling: where its library is, and how a builder gets it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export import pooling
from cxr_trt.hashing import hash_file

PLUGIN_VERSION = "1"  # version of the plugin's interface: attributes, inputs and outputs
PLUGIN_VARIABLE = "CXR_TRT_PLUGIN"
INSTALLED_PLUGIN = Path(__file__).with_name("libcxr_trt_plugin.so")  # `make plugin` writes it
NOT_BUILT = (
    "the pooling plugin is not built, so TensorRT uses standard operators instead: run `make plugin` in the source "
    f"tree, or set {PLUGIN_VARIABLE} to the library; `build-engine --no-plugin` does without it silently"
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


def load_plugin(plugin: Plugin, registry: Any) -> None:
    """Register the library's creator in a builder's registry, which unloads it when the builder ends.

    Raises:
        BackendError: this machine cannot load the library, or it has no MaxMinPool of PLUGIN_VERSION.
    """
    handle = registry.load_library(str(plugin.path))
    if handle is None or registry.get_creator(pooling.POOLING_OPERATOR, PLUGIN_VERSION, "") is None:
        raise BackendError(
            f"TensorRT cannot load the plugin {plugin.path}: build it again with `make plugin`, or use --no-plugin"
        )
