"""The pooling's TensorRT plugin: where its library is, and how a builder and its engine come to have it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export import pooling
from cxr_trt.hashing import hash_file

PLUGIN_VERSION = "1"  # of the plugin's interface: attributes, inputs, outputs
PLUGIN_VARIABLE = "CXR_TRT_PLUGIN"
INSTALLED_PLUGIN = Path(__file__).with_name("libcxr_trt_plugin.so")  # `make plugin` writes it
NOT_BUILT = (
    "the pooling plugin is not built, so TensorRT gets its standard operators: run `make plugin` in the source tree, "
    f"or set {PLUGIN_VARIABLE} to the library; --no-plugin asks for the operators"
)


class Plugin(NamedTuple):
    """A plugin library, and the sha256 of its content in hexadecimal."""

    path: Path
    sha256: str

    def settings(self) -> dict[str, str]:
        """What a manifest says of it."""
        return {"name": pooling.POOLING_OPERATOR, "version": PLUGIN_VERSION, "sha256": self.sha256}


def find_plugin() -> Plugin | None:
    """The library that CXR_TRT_PLUGIN names, else the one that `make plugin` built; None if there is neither.

    Raises:
        UsageError: CXR_TRT_PLUGIN names no file that can be read.
    """
    named = os.environ.get(PLUGIN_VARIABLE)
    path = Path(named) if named else INSTALLED_PLUGIN
    if not named and not path.is_file():
        return None
    try:
        return Plugin(path.resolve(), hash_file(path))
    except OSError as error:
        raise UsageError(
            f"{PLUGIN_VARIABLE} is {named}: {error.strerror}; run `make plugin`, or use --no-plugin"
        ) from error


def load_plugin(plugin: Plugin, registry: Any) -> None:
    """Register the library's creator in a builder's registry, which drops it when the builder ends.

    Raises:
        BackendError: it is not a plugin library that this machine can load, or has no MaxMinPool of our version.
    """
    handle = registry.load_library(str(plugin.path))
    if handle is None or registry.get_creator(pooling.POOLING_OPERATOR, PLUGIN_VERSION, "") is None:
        raise BackendError(
            f"TensorRT cannot load the plugin {plugin.path}: build it again with `make plugin`, or use --no-plugin"
        )
