"""The interface of a backend, which builds an engine from a scoring graph and opens an engine to run it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cxr_trt.progress import ProgressCallback, ignore_progress
from cxr_trt.spec import Specification

if TYPE_CHECKING:
    import onnx


class Outputs(NamedTuple):
    """What an engine returns for a batch of N images.

    probabilities: float32 [N, findings].
    class_maps: float32 [N, findings, h, w], over `Specification.class_map_region`; None if not asked for.
    """

    probabilities: npt.NDArray[np.float32]
    class_maps: npt.NDArray[np.float32] | None


Pending = Callable[[], Outputs]
"""Call it once: it waits for a submitted batch and returns its outputs. Raises BackendError."""


class ScoringEngine(Protocol):
    """What the scoring pipeline needs: an open bundle (`cxr_trt.score.engine.Engine`), or the PyTorch reference.

    fingerprint: written into every row. warnings: added to every row.
    max_batch: the largest number of images per call of `submit`.
    in_flight: how many batches may be submitted before the first is collected.
    """

    spec: Specification
    fingerprint: str
    warnings: tuple[str, ...]
    max_batch: int
    in_flight: int

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start scoring 1 to `max_batch` images, uint8 [height, width]."""
        ...


class Runner(Protocol):
    """An open engine on one device. Not safe to call from two threads at once."""

    max_batch: int
    in_flight: int
    has_class_maps: bool

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start scoring 1 to `max_batch` images, uint8 [height, width]; class maps only if the engine has them.

        At most `in_flight` batches may be in flight. A runner that does not overlap batches computes immediately and
        returns a function that hands over the finished outputs.

        Raises:
            BackendError: the engine failed, either now or when the batch is collected.
        """
        ...

    def close(self) -> None:
        """Free everything that the engine holds; it cannot run afterwards."""
        ...


class LayerTime(NamedTuple):
    """How long a layer of an engine takes for one X-ray.

    name: as the backend calls it, usually after the layer of the network. kind: what computes it. seconds: the median.
    """

    name: str
    kind: str
    seconds: float


Compatibility = Literal["same-capability", "ampere"]
"""GPUs of the same compute capability, or all from Ampere (8.0) on."""


@dataclass(frozen=True)
class BuildOptions:
    """What a backend needs to know besides the graph.

    max_batch: the largest number of X-rays (not crops) per call. on_progress: called while building.
    plugin: whether TensorRT uses the pooling plugin; None: if it is built, and if the pooling sorts (k above 1).
    memory_limit: bytes that TensorRT may use for the scratch memory of a kernel; None: what is free.
    fast_build: whether TensorRT takes the first kernels that work, instead of timing all.
    compatible: the other GPUs that a TensorRT engine shall run on; None: none.
    version_compatible: whether later versions of TensorRT shall run the engine too.
    single_xrays: whether TensorRT chooses kernels for single X-rays too, beside those for full batches.
    tf32: whether products of a float32 graph may be computed in TF32, by a backend that has tf32 among its precisions.
    bfloat16: whether what is not int8 may be computed in bfloat16, by a backend that has bf16 among its precisions.
    float16: whether all of the graph may be computed in float16, by a backend with `sets_float16`.
    """

    max_batch: int = 1
    on_progress: ProgressCallback = ignore_progress
    plugin: bool | None = None
    memory_limit: int | None = None
    fast_build: bool = False
    compatible: Compatibility | None = None
    version_compatible: bool = False
    single_xrays: bool = False
    tf32: bool = False
    bfloat16: bool = False
    float16: bool = False


class Backend(Protocol):
    """One way to run a scoring graph. `settings` is the backend's own part of the manifest: plain JSON values.

    share_crops: whether its engines share crops by default, which is so where that was measured to be faster.
    chunk_concats: whether its floating-point engines join features in chunks, likewise.
    rewrite_networks: whether other projects' networks are rewritten (`cxr_trt.export.grey_stem`,
        `cxr_trt.export.pool_first`), likewise.
    crops_in_turn: whether the network sees the crops of an X-ray one after the other, likewise.
    int8_features: whether int8 engines keep the features that dense blocks join in int8 for ten crops, likewise.
    sets_float16: whether float16 is a setting for all of a graph, whose own types then stay float32.
    on_cpu: whether its engines run on the CPU: their settings then include a `cxr_trt.engine.cpu.config.CpuConfig`, and
        layers of an int8 engine that are not int8 compute in float32. On a GPU those compute in float16.
    precisions: the precisions that it supports on this machine.
    layouts: memory layouts of feature maps that its engines can be told to use, the usual one first; empty if they
        choose for themselves.
    """

    name: str
    default_max_batch: int
    share_crops: bool
    chunk_concats: bool
    rewrite_networks: bool
    crops_in_turn: bool
    sets_float16: bool
    layouts: tuple[str, ...]
    on_cpu: bool

    @property
    def int8_features(self) -> bool: ...

    @property
    def precisions(self) -> tuple[str, ...]: ...

    def why_not_build(self) -> str | None:
        """None if engines can be built here; otherwise one sentence that names the install command."""
        ...

    def why_not_run(self) -> str | None:
        """None if engines can run here; otherwise one sentence that says what is missing."""
        ...

    def version(self) -> str:
        """The version of the installed backend."""
        ...

    def build(self, graph: "onnx.ModelProto", folder: Path, options: BuildOptions) -> Mapping[str, Any]:
        """Write the engine's own files into `folder`, and return `settings`.

        `graph` is only in memory: a backend that needs it when the engine runs must write it itself.

        Raises:
            BackendError: the backend refuses the graph.
        """
        ...

    def why_not_open(self, settings: Mapping[str, Any]) -> str | None:
        """None if an engine built with these settings can be opened here; otherwise what differs (GPU model, ...).

        The files have already been checked; the backend's version is compared afterwards.
        """
        ...

    def open(self, folder: Path, spec: Specification, settings: Mapping[str, Any]) -> Runner:
        """Load the engine in `folder`. Raises BackendError."""
        ...

    def layer_times(
        self, folder: Path, settings: Mapping[str, Any], image: npt.NDArray[np.uint8], runs: int
    ) -> list[LayerTime]:
        """Time each layer of the engine in `folder` on one image, uint8 [1, 1, height, width], in order of execution.

        Measuring makes the engine a little slower. Raises BackendError.
        """
        ...


def median_layers(measured: Sequence[Sequence[LayerTime]]) -> list[LayerTime]:
    """The medians of several runs, each with all layers of an engine in the same order."""
    return [
        layers[0]._replace(seconds=statistics.median(layer.seconds for layer in layers))
        for layers in zip(*measured, strict=True)
    ]


def concat_outputs(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of a batch that was run in parts."""
    if len(parts) == 1:
        return parts[0]
    maps = [part.class_maps for part in parts if part.class_maps is not None]
    return Outputs(np.concatenate([part.probabilities for part in parts]), np.concatenate(maps) if maps else None)
