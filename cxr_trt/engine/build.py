"""Building an engine bundle: a folder NAME.cxr with the manifest, the scoring graph and the backend's own files."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from cxr_trt.engine.backend import Backend, BuildOptions
from cxr_trt.engine.box_check import compare_boxes
from cxr_trt.engine.build_check import check_parity
from cxr_trt.engine.cpu.config import CpuConfig
from cxr_trt.engine.cpu.tuning import tune
from cxr_trt.engine.manifest import GRAPH_FILE, MANIFEST_FILE, Manifest
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.hashing import hash_file
from cxr_trt.outputs import check_folder
from cxr_trt.precision import Precision
from cxr_trt.precision.plan import FLOAT32, PRECISION_FILE, PrecisionPlan
from cxr_trt.precision.ranges import Images

MAX_CHECK_IMAGES = 4  # a new engine is compared with its scoring graph on at most this many images


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    graph: the scoring graph. backend: the backend to build for. plan: the precision. options: passed to the backend.
    share_crops: see `cxr_trt.export.rewrites.Rewrites`; None means the backend's default.
    cpu_configs: configurations to time on a CPU; the fastest replaces `options.max_batch`. Empty means one stream.
    images: X-rays on which engine and scoring graph are compared; None means built-in pictures.
    tried: what was measured of this and other precisions (`cxr_trt.engine.precision_choice`), for the manifest.
    """

    graph: ScoringGraph
    backend: Backend
    plan: PrecisionPlan = FLOAT32
    options: BuildOptions = field(default_factory=BuildOptions)
    share_crops: bool | None = None
    cpu_configs: tuple[CpuConfig, ...] = ()
    images: Images | None = None
    tried: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def shares_crops(self) -> bool:
        """`share_crops`, or the backend's default."""
        return self.backend.share_crops if self.share_crops is None else self.share_crops

    def for_backend(self) -> tuple[onnx.ModelProto, BuildOptions]:
        """What the backend builds the engine from."""
        model = self.plan.engine_graph(self.graph, self.backend, share_crops=self.shares_crops)
        max_batch = 1 if self.graph.one_by_one else self.options.max_batch
        return model, options_for(self.plan, self.backend, replace(self.options, max_batch=max_batch), self.graph)


def build_bundle(request: BuildRequest, target: Path, *, overwrite: bool = False) -> Manifest:
    """Build an engine from a scoring graph. The bundle appears at `target` complete or not at all.

    Args:
        request: what to build.
        target: the folder to write.
        overwrite: whether a bundle at `target` may be replaced.

    Raises:
        UsageError: `target` exists and `overwrite` is False, or it is not a bundle, or it cannot be written.
        BackendError: the backend refuses the graph, or the engine runs here and its results differ from the graph's.
    """
    with _new_bundle(target, overwrite) as folder:
        manifest = _build_into(folder, request)
        (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return manifest


def copy_bundle(bundle: Path, manifest: Manifest, target: Path, *, overwrite: bool = False) -> None:
    """Copy a bundle's files to `target`, complete or not at all, with a manifest that says more of how it was chosen.

    Raises UsageError as `build_bundle` does.
    """
    with _new_bundle(target, overwrite) as folder:
        for name in manifest.files:
            shutil.copyfile(bundle / name, folder / name)
        (folder / MANIFEST_FILE).write_text(manifest.to_json())


@contextmanager
def _new_bundle(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder for a bundle's files, which appears at `target` when the block ends without an error."""
    check_target(target, overwrite)
    target = target.resolve()
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    old = folder.with_suffix(".old")
    try:
        folder.mkdir()
        yield folder
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


def _build_into(folder: Path, request: BuildRequest) -> Manifest:
    """Write every file of the bundle except the manifest, which is returned."""
    graph, backend, plan = request.graph, request.backend, request.plan
    graph.save(folder / GRAPH_FILE)
    model, options = request.for_backend()
    settings = {**backend.build(model, folder, options), "share_crops": request.shares_crops, **plan.summary()}
    if plan.calibration:
        settings["int8"]["int8_features"] = plan.has_int8_features(graph, backend)
    if plan.precision != "fp32":
        (folder / PRECISION_FILE).write_text(plan.to_json())
    if request.cpu_configs and backend.on_cpu:
        settings = tune(backend, folder, graph.spec, settings, request.cpu_configs, request.options.on_progress)
    if request.tried:
        settings["tuning"] = {**settings.get("tuning", {}), "precision": dict(request.tried)}
    agreement = compare_boxes(graph.model, model, _pictures(request))
    if agreement is not None:
        settings["second_pass"] = agreement.summary()
    checked = _pictures(request)[slice(None) if agreement is None else agreement.agrees][:MAX_CHECK_IMAGES]
    if not len(checked):
        raise BackendError(
            f"nothing was written: {plan.precision} moves the second pass's box in every X-ray that was checked; build "
            "with fp32, or name more X-rays with --calibrate"
        )
    settings["parity"] = None if backend.why_not_run() else _parity(folder, request, settings, checked)
    files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
    return Manifest(graph.info, plan.precision, backend.name, backend.version(), settings, files)


def options_for(plan: PrecisionPlan, backend: Backend, options: BuildOptions, graph: ScoringGraph) -> BuildOptions:
    """The options with what the plan's precision asks of the backend.

    Raises:
        BackendError: it asks for bfloat16 or float16, which the backend chooses for a whole graph, and a part of this
            one must not be.
    """
    float16 = plan.precision == "fp16" and backend.sets_float16
    if (plan.precision == "bf16" and graph.keeps_float32) or (float16 and (graph.keeps_float32 or plan.float32)):
        raise BackendError(
            f"a part of this network must stay float32, which {backend.name} cannot do within {plan.precision}; choose "
            "another --precision"
        )
    bfloat16 = plan.precision in ("bf16", "int8") and "bf16" in backend.precisions and not graph.keeps_float32
    return replace(options, tf32=plan.precision == "tf32", bfloat16=bfloat16, float16=float16)


def _pictures(request: BuildRequest) -> Images:
    """What engine and scoring graph are compared on, uint8 [N, 1, height, width]."""
    if request.images is not None:
        return request.images
    built_in = slice(1 if request.backend.on_cpu else None)  # on a GPU, batches must differ: see `check_parity`
    return check_pictures(request.graph.spec.image_size)[built_in]


def _parity(folder: Path, request: BuildRequest, settings: Mapping[str, Any], checked: Images) -> dict[str, Any]:
    graph = request.graph
    request.options.on_progress("compare with the scoring graph", 0.0)
    runner = request.backend.open(folder, graph.spec, settings)
    try:
        parity = check_parity(runner, graph.model, checked, _computed_precision(request))
    finally:
        runner.close()
    request.options.on_progress("compare with the scoring graph", 1.0)
    return asdict(parity)


def _computed_precision(request: BuildRequest) -> Precision:
    """The plan's precision, or that in which the network came, which a float32 plan leaves as it is."""
    network = request.graph.network_graph
    if request.plan.precision != "fp32" or network is None:
        return request.plan.precision
    return "int8" if network.is_quantized else "fp16" if network.is_float16 else "fp32"


def check_target(target: Path, overwrite: bool) -> None:
    """Raise UsageError if a bundle may not be written to `target`. Call it before the work starts."""
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; add --overwrite to replace it, or choose another path")
    if target.exists() and not (target / MANIFEST_FILE).is_file():
        raise UsageError(f"{target} exists and is not an engine bundle; choose another path")
    check_folder(target.parent)
