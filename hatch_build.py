"""Makes a wheel for one platform of a library of the plugin; without one, the wheel is for any platform."""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLUGIN = "cxr_trt/engine/gpu/libcxr_trt_plugin.so"
PLUGIN_VARIABLE = "CXR_TRT_WHEEL_PLUGIN"  # names another library than the one that `make plugin` built
MACHINE_OFFSET = 18  # of the 16 bits of an ELF file that say which processor it is for
MACHINES = {62: "x86_64", 183: "aarch64"}


class PluginHook(BuildHookInterface):
    """Adds the plugin library, which git ignores, to the wheel, whose tag names the library's processor."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = Path(os.environ.get(PLUGIN_VARIABLE) or Path(self.root, PLUGIN))
        if version == "standard" and library.is_file():
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-linux_{processor(library)}"
            build_data["force_include"][str(library)] = PLUGIN


def processor(library: Path) -> str:
    """The processor that an ELF library is for, as in the tag of a wheel."""
    head = library.read_bytes()[: MACHINE_OFFSET + 2]
    machine = int.from_bytes(head[MACHINE_OFFSET:], "little")
    if not head.startswith(b"\x7fELF") or machine not in MACHINES:
        raise ValueError(f"{library} is no library for {' or '.join(MACHINES.values())}; build it again")
    return MACHINES[machine]
