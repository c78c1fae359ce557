"""Engine bundles: a folder NAME.cxr with the manifest, the scoring graph and what the backend built from it."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cxr_trt.calibrate.calibration import read_calibration
from cxr_trt.engine.backend import Backend, BuildOptions, Outputs, Pending, joined
from cxr_trt.engine.manifest import NAME, Manifest, hash_file, read_manifest
from cxr_trt.engine.parity import check_parity
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.engine.tuning import tuned
from cxr_trt.errors import BundleError, UsageError
from cxr_trt.export.graph_file import GraphInfo
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.plan import FLOAT32, PLAN, Plan
from cxr_trt.export.ranges import Images
from cxr_trt.model.settings import CAUTIONS
from cxr_trt.outputs import check_folder

MODEL = "model.onnx"  # the scoring graph, in every bundle: any bundle can be rebuilt elsewhere
CHECKED = 4  # images that a build is held against its scoring graph on


def build_bundle(
    model: onnx.ModelProto,
    info: GraphInfo,
    backend: Backend,
    target: Path,
    options: BuildOptions,
    *,
    overwrite: bool,
    plan: Plan = FLOAT32,
    images: Images | None = None,
) -> Manifest:
    """Build an engine from a scoring graph. The bundle appears at `target` whole or not at all.

    Args:
        model: the scoring graph.
        info: its metadata.
        backend: what the engine is for.
        target: the folder to write.
        options: see `BuildOptions`.
        overwrite: whether a bundle at `target` may be replaced.
        plan: the engine's precision.
        images: uint8 [N, 1, size, size] to compare engine and scoring graph on; by default built-in pictures.

    Raises:
        UsageError: `target` exists and `overwrite` is False, is not a bundle, or cannot be written.
        BackendError: the backend refuses the graph, or the engine can run here and gives other results.
    """
    check_target(target, overwrite)
    target = target.resolve()
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    old = folder.with_suffix(".old")
    try:
        folder.mkdir()
        onnx.save(model, folder / MODEL)
        share_crops = backend.share_crops if options.share_crops is None else options.share_crops
        graph = plan.graph(model, info, share_crops=share_crops, half=not backend.on_cpu)
        settings = {**backend.build(graph, folder, options), "share_crops": share_crops, **plan.summary()}
        if plan.precision != "fp32":
            (folder / PLAN).write_text(plan.to_json())
        if options.ways and backend.on_cpu:
            settings = tuned(backend, folder, info.spec, settings, options.ways, options.report)
        checked = check_pictures(info.spec.image_size)[:1] if images is None else images[:CHECKED]
        can_run = not backend.why_not_run()
        settings["parity"] = _parity(backend, folder, model, info, settings, plan, checked) if can_run else None
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        manifest = Manifest(info, plan.precision, backend.name, backend.version(), settings, files)
        (folder / NAME).write_text(manifest.to_json())
        if target.exists():
            target.rename(old)
        folder.rename(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}); choose another -o") from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return manifest


def _parity(
    backend: Backend,
    folder: Path,
    model: onnx.ModelProto,
    info: GraphInfo,
    settings: Mapping[str, Any],
    plan: Plan,
    images: Images,
) -> dict[str, Any]:
    runner = backend.open(folder, info.spec, settings)
    try:
        return asdict(check_parity(runner, model, images, plan.precision))
    finally:
        runner.close()


def check_target(target: Path, overwrite: bool) -> None:
    """Raise UsageError if a bundle may not be written to `target`: called before the work, not after it."""
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; add --overwrite to replace it, or choose another path")
    if target.exists() and not (target / NAME).is_file():
        raise UsageError(f"{target} exists and is not an engine bundle; choose another path")
    check_folder(target.parent)


class Engine:
    """An open engine bundle. Use it as a context manager, from one thread at a time.

    Attributes:
        manifest: what it was built from, and how.
        spec: the specification of its scoring graph.
        fingerprint: identifies engine and specification; stands in every row.
        calibration: what `cxr-trt calibrate` fitted for it, or None; `run` gives probabilities as the network does.
        has_class_maps: whether its graph gives class maps.
        max_batch: images that go through the engine at once.
        in_flight: batches that may be submitted before the first is collected.
        warnings: what is to be said of every result: that the model is no more than a demonstration, if so.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a bundle after checking every file of it.

        Raises:
            BundleError: incomplete or changed, its calibration included, or built by another version of its backend
                or for another GPU.
            BackendError: its backend cannot run here.
        """
        path = Path(path)
        self.manifest = read_manifest(path)
        self.spec = self.manifest.graph.spec
        self.fingerprint = self.manifest.fingerprint
        self.calibration = read_calibration(path, self.fingerprint)
        self.warnings = CAUTIONS[self.manifest.graph.weights]
        backend = BACKENDS.get(self.manifest.backend)
        if backend is None:
            raise BundleError(f"{path}: made for the unknown backend {self.manifest.backend!r}; update cxr-trt")
        if reason := backend.why_not_run():
            raise BundleError(f"{path}: {reason}")
        built, here = self.manifest.backend_version, backend.version()
        if reason := backend.why_not_open(self.manifest.settings):
            raise BundleError(f"{path}: {reason}; rebuild it: `cxr-trt build-engine {path} -o NEW.cxr`")
        if built != here:
            raise BundleError(
                f"{path}: built with {backend.name} {built}, but {here} is installed; "
                f"rebuild it: `cxr-trt build-engine {path} -o NEW.cxr --backend {backend.name}`"
            )
        self._runner = backend.open(path, self.spec, self.manifest.settings)
        self.max_batch, self.in_flight = self._runner.max_batch, self._runner.in_flight
        self.has_class_maps = self._runner.has_class_maps

    def run(self, images: npt.NDArray[np.uint8], *, class_maps: bool = False) -> Outputs:
        """Score preprocessed images.

        Args:
            images: uint8 [N, 1, size, size] or [N, size, size], any N.
            class_maps: whether to return them too.

        Raises:
            UsageError: images of another type or shape, or class maps that the graph does not give.
            BackendError: the engine failed.
        """
        size = self.spec.image_size
        if images.dtype != np.uint8 or not len(images) or images.shape[1:] not in ((1, size, size), (size, size)):
            raise UsageError(
                f"images are {images.dtype} {list(images.shape)}, not uint8 [N, 1, {size}, {size}]; "
                "cxr_trt.preprocess makes them"
            )
        self._check_class_maps(class_maps)
        batches = images.reshape(-1, 1, size, size)
        parts = [
            self._runner.run(batches[i : i + self.max_batch], class_maps)
            for i in range(0, len(batches), self.max_batch)
        ]
        return joined(parts)

    def submit(self, images: Sequence[npt.NDArray[np.uint8]], class_maps: bool) -> Pending:
        """Start to score a batch of 1 to `max_batch` images, uint8 [size, size].

        At most `in_flight` batches may be on their way. What is returned waits for the outputs: call it once.

        Raises:
            UsageError: class maps that the graph does not give.
            BackendError: other images than the engine takes, or the engine failed.
        """
        self._check_class_maps(class_maps)
        return self._runner.submit(images, class_maps)

    def _check_class_maps(self, wanted: bool) -> None:
        if wanted and not self.has_class_maps:
            raise UsageError("the engine gives no class maps; export the checkpoint with --class-maps")

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
