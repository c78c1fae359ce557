"""How a CPU engine uses the processors, and what both CPU backends have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxr_trt.engine.backend import LayerTime
from cxr_trt.errors import BackendError


class CpuConfig(NamedTuple):
    """How a CPU engine uses the processors. The fields have the same names as in a manifest's `settings`.

    streams: how many parts of a batch are computed side by side.
    max_batch: the largest number of X-rays per call, which are divided among the streams.
    hyper_threading: whether there is one thread per logical processor; otherwise there is one per core.
    layout: one of `Backend.layouts`; empty means the first.
    """

    streams: int
    max_batch: int
    hyper_threading: bool = False
    layout: str = ""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "CpuConfig":
        """The configuration in a manifest's settings. Fields that have a default may be missing."""
        return cls(**{name: settings[name] for name in cls._fields if name in settings})

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}


class CpuBackend:
    """What both CPU backends have in common: they are always installed, and their engines fit any processor."""

    default_max_batch = 1
    share_crops = crops_in_turn = True
    chunk_concats = rewrite_networks = False
    layouts: tuple[str, ...] = ()
    on_cpu = True
    sets_float16 = False

    @property
    def int8_features(self) -> bool:
        return False

    def why_not_build(self) -> None:
        return None

    def why_not_run(self) -> None:
        return None

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        layout = settings.get("layout")
        known = not layout or layout in self.layouts
        return None if known else f"the engine was built for the layout {layout!r}, which this version does not know"

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        raise BackendError("this backend does not tell what its layers take; leave --layers out")
