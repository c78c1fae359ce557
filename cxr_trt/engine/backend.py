"""What a backend is: it builds an engine from a scoring graph, and opens an engine to run it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from cxr_trt.spec import Specification


class Outputs(NamedTuple):
    """What an engine gives for a batch of N images.

    probabilities: float32 [N, 14].
    class_maps: float32 [N, 14, h, w], over `Specification.class_map_region`; None if not asked for.
    """

    probabilities: npt.NDArray[np.float32]
    class_maps: npt.NDArray[np.float32] | None


Pending = Callable[[], Outputs]  # waits for a batch; to be called once; raises BackendError


class ScoringEngine(Protocol):
    """What the scoring core needs: an open bundle (`cxr_trt.engine.bundle.Engine`), or the PyTorch reference.

    fingerprint: stands in every row. warnings: stand in every row. max_batch: images in a call of `run` or `submit`.
    in_flight: batches that may be submitted before the first is collected.
    """

    spec: Specification
    fingerprint: str
    warnings: tuple[str, ...]
    max_batch: int
    in_flight: int

    def run(self, images: npt.NDArray[np.uint8], *, class_maps: bool = False) -> Outputs:
        """Score uint8 [N, size, size], 1 <= N <= max_batch."""
        ...

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start to score 1 to max_batch images, uint8 [size, size]."""
        ...


class Runner(Protocol):
    """An open engine on one device. Not safe to call from two threads at once."""

    max_batch: int
    in_flight: int
    has_class_maps: bool

    def run(self, images: npt.NDArray[np.uint8], class_maps: bool) -> Outputs:
        """Score uint8 [N, 1, size, size], 1 <= N <= max_batch; class maps only if it has them. Raises BackendError."""
        ...

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start to score uint8 [size, size] images; see `in_flight` of `ScoringEngine`. Raises BackendError."""
        ...

    def close(self) -> None:
        """Free what the engine holds; it cannot run afterwards."""
        ...


class Way(NamedTuple):
    """How a CPU engine uses the processors; the names are those in `settings`.

    streams: batches side by side. max_batch: X-rays in a call of `run`, divided among the streams. hyper_threading:
    whether each logical processor has a thread, else each core. layout: of `Backend.layouts`; empty: the first.
    """

    streams: int
    max_batch: int
    hyper_threading: bool = False
    layout: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Way":
        """What `settings` say; they may lack what has a default."""
        return cls(**{name: settings[name] for name in cls._fields if name in settings})

    @property
    def settings(self) -> dict[str, Any]:
        """Without what is as by default, so that the same engine has the same fingerprint, timed or not."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    max_batch: X-rays (not crops) in a call. report: called with (phase, fraction done 0..1) while building.
    share_crops: see `cxr_trt.export.rewrites.Rewrites`; None: as the backend proposes.
    plugin: whether TensorRT may take the pooling's plugin. ways: to be timed on a CPU (`cxr_trt.engine.tuning`); the
    best takes the place of `max_batch`. None: one stream.
    """

    max_batch: int
    report: Callable[[str, float], None]
    share_crops: bool | None = None
    plugin: bool = True
    ways: tuple[Way, ...] = ()


class Backend(Protocol):
    """One way to run a scoring graph. `settings` is the backend's own part of the manifest: plain JSON values.

    share_crops: whether its engines are built so by default, because it was measured to be faster. on_cpu: whether its
    engines take a `Way` among their settings, and float32 for what is not int8; else that is float16.
    precisions: what it can compute in. layouts: of feature maps in memory, among which its engines can be told to
    choose, the usual one first; empty if they choose themselves.
    """

    name: str
    default_max_batch: int
    share_crops: bool
    precisions: tuple[str, ...]
    layouts: tuple[str, ...]
    on_cpu: bool

    def why_not_build(self) -> str | None:
        """None if engines can be built here; else one sentence that names the install command."""
        ...

    def why_not_run(self) -> str | None:
        """None if engines can run here; else one sentence that says what is missing."""
        ...

    def version(self) -> str:
        """Version of the installed backend."""
        ...

    def build(self, graph: onnx.ModelProto, folder: Path, options: BuildOptions) -> Mapping[str, Any]:
        """Write the engine's own files into `folder`; return `settings`. Of `graph`, none is there yet.

        Raises BackendError.
        """
        ...

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        """None if an engine built with these settings can be opened here; else what differs (GPU model, ...).

        The manifest has already been checked: the files are unchanged and the backend's version is the same.
        """
        ...

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> Runner:
        """Load the engine in `folder`. Raises BackendError."""
        ...


class CpuBackend:
    """What the CPU backends share: they are part of the base install, and their engines are bound to no device."""

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


class OneByOne:
    """What runs a batch at once, and nothing beside it: its `submit` is its `run`."""

    in_flight = 1
    run: Callable[..., Outputs]

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        stacked = np.stack(images)
        outputs = self.run(stacked.reshape(-1, 1, *stacked.shape[-2:]), class_maps=class_maps)
        return lambda: outputs


def joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of a batch that was run in parts."""
    if len(parts) == 1:
        return parts[0]
    maps = [part.class_maps for part in parts if part.class_maps is not None]
    return Outputs(np.concatenate([part.probabilities for part in parts]), np.concatenate(maps) if maps else None)
