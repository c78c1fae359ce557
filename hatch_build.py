"""Makes a wheel for one platform of what `make plugin` has built; without it, the wheel is for any platform."""

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLUGIN = "cxr_trt/engine/gpu/libcxr_trt_plugin.so"


class PluginHook(BuildHookInterface):
    """Adds the plugin library, which git ignores, to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = Path(self.root, PLUGIN)
        if version == "standard" and library.is_file():
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{platform.machine()}"
            build_data["force_include"][str(library)] = PLUGIN
