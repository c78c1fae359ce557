"""What an engine and TensorRT's timings are bound to: the GPU with its size, and a Jetson's power mode.

Neither name nor compute capability tells the boards of one family apart: every Jetson Orin calls itself "Orin" (8.7),
with 4 to 16 multiprocessors, and a power mode may switch some of them off.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr_trt.engine.gpu.cuda import Gpu

POWER_MODE_FILE = Path("/var/lib/nvpmodel/status")  # on a Jetson; such as "pmode:0002"
BOARD_FILE = Path("/proc/device-tree/compatible")  # on a Jetson; such as "nvidia,p3768-0000+p3767-0003"
MEMORY_TOLERANCE = 0.1  # what the system keeps of a Jetson's memory differs a little between releases
GIB = 1 << 30
AMPERE = (8, 0)  # the first compute capability of that generation


@dataclass(frozen=True)
class GpuIdentity:
    """The fields have the same names as in a manifest's `settings`, and are None where an older manifest lacks them.

    memory_gib: total memory in GiB, rounded. power_mode: the number of nvpmodel's mode; None where there is none.
    board: the part number of a Jetson's module, such as "p3767-0003"; None where there is none, or it cannot be read.
    """

    gpu: str
    compute_capability: str
    multiprocessors: int | None = None
    memory_gib: int | None = None
    power_mode: int | None = None
    board: str | None = None

    @classmethod
    def of(cls, gpu: Gpu) -> "GpuIdentity":
        """The identity of a GPU of this machine. Call it inside `with gpu.current():`."""
        memory = round(gpu.memory().total / GIB)
        mode, board = power_mode(POWER_MODE_FILE), jetson_board(BOARD_FILE)
        return cls(gpu.name, gpu.compute_capability, gpu.multiprocessors, memory, mode, board)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "GpuIdentity | None":
        """The GPU that an engine was built for; None if it was built for any."""
        if settings["gpu"] is None:
            return None
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__ if name in settings})

    @property
    def settings(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def text(self) -> str:
        """One line for messages and names of files."""
        details = [f"compute capability {self.compute_capability}"]
        if self.multiprocessors is not None:
            details.append(f"{self.multiprocessors} multiprocessors")
        if self.memory_gib is not None:
            details.append(f"{self.memory_gib} GiB")
        if self.power_mode is not None:
            details.append(f"power mode {self.power_mode}")
        if self.board is not None:
            details.append(f"board {self.board}")
        return f"{self.gpu} ({', '.join(details)})"

    def why_not(self, here: "GpuIdentity") -> str | None:
        """None if an engine that was built for this GPU fits the one that is here; otherwise one sentence."""
        pairs = [
            (mine, other)
            for name, mine in asdict(self).items()
            if name != "memory_gib" and (other := getattr(here, name)) is not None and mine is not None
        ]
        differs = any(mine != other for mine, other in pairs)
        if self.memory_gib is not None and here.memory_gib is not None:
            differs |= abs(self.memory_gib - here.memory_gib) > max(1, MEMORY_TOLERANCE * self.memory_gib)
        return f"the engine was built for {self.text}, but this GPU is {here.text}" if differs else None


def why_not_compatible(compatible: str, built_for: GpuIdentity, here: GpuIdentity) -> str | None:
    """None if an engine that was built with --compatible runs on a GPU; otherwise one sentence."""
    if compatible == "ampere" and capability(here.compute_capability) >= AMPERE:
        return None
    if here.compute_capability == built_for.compute_capability:
        return None
    needs = "8.0 or newer" if compatible == "ampere" else built_for.compute_capability
    return f"the engine was built for compute capability {needs}, but this GPU is {here.text}"


def capability(text: str) -> tuple[int, ...]:
    """A compute capability such as "8.9" as numbers, which can be compared."""
    return tuple(map(int, text.split(".")))


def power_mode(file: Path) -> int | None:
    """The number of a Jetson's power mode (`nvpmodel -q`); None where there is none."""
    try:
        found = re.search(r"pmode:(\d+)", file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return int(found[1]) if found else None


def jetson_board(file: Path) -> str | None:
    """The part number of a Jetson's module, which follows that of the board that carries it; None where there is none.

    Docker hides the file from containers.
    """
    try:
        found = re.search(r"\+(p\d{4}-\d{4})", file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None
