"""How a CPU engine uses the processors, and what the CPU backends share."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class CpuConfig(NamedTuple):
    """How a CPU engine uses the processors; the fields are named as in a manifest's `settings`.

    streams: batches side by side. max_batch: the most X-rays in a call, divided among the streams. hyper_threading:
    whether each logical processor has a thread, else each core. layout: one of `Backend.layouts`; empty: the first.
    """

    streams: int
    max_batch: int
    hyper_threading: bool = False
    layout: str = ""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "CpuConfig":
        """What `settings` say; fields that have a default may be missing."""
        return cls(**{name: settings[name] for name in cls._fields if name in settings})

    @property
    def settings(self) -> dict[str, Any]:
        """Fields that differ from their defaults, so that an engine has the same fingerprint whether timed or not."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}


class CpuBackend:
    """What the CPU backends share: they are part of the base installation, and bound to no device."""

    default_max_batch = 1
    share_crops = True
    layouts: tuple[str, ...] = ()
    on_cpu = True

    def why_not_build(self) -> None:
        return None

    def why_not_run(self) -> None:
        return None

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        layout = settings.get("layout")
        known = not layout or layout in self.layouts
        return None if known else f"made for the unknown layout {layout!r}"


def processors() -> int:
    """Logical processors that this process may use."""
    return len(os.sched_getaffinity(0))


def cores(system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may use; where Linux does not say which processors share one, as many as processors."""
    found = set()
    for number in os.sched_getaffinity(0):
        try:
            found.add((system / f"cpu{number}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            found.add(str(number))
    return len(found)
