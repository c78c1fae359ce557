"""The command `cxr-trt build-engine`."""

from pathlib import Path

import click

from cxr_trt.engine.backend import BuildOptions
from cxr_trt.engine.bundle import build_bundle, check_target
from cxr_trt.engine.calibration_images import CalibrationImages, choose_images
from cxr_trt.engine.choice import check_backend, choose_backend
from cxr_trt.engine.planning import plan_half, plan_int8
from cxr_trt.engine.source import Source, load_source
from cxr_trt.engine.tuning import ways
from cxr_trt.errors import UsageError
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.plan import FLOAT32, Plan
from cxr_trt.precision import CalibrationMethod, Precision
from cxr_trt.progress import PhaseProgress
from cxr_trt.views import ViewSet


def run(
    source: Path,
    output: Path,
    backend_name: str,
    max_batch: int | None,
    share_crops: bool | None,
    tune: bool,
    plugin: bool,
    precision: Precision | None,
    calibrate: tuple[Path, ...],
    calibration_images: int,
    method: CalibrationMethod,
    seed: int,
    labels: Path | None,
    exclude: Path | None,
    setting: str | None,
    view_set: ViewSet | None,
    overwrite: bool,
) -> None:
    """Build an engine bundle.

    Raises:
        CxrTrtError: nothing can be built from that source, so, or there.
    """
    check_target(output, overwrite)
    if (labels or exclude) and not calibrate:
        raise UsageError("--labels and --exclude choose among the images of --calibrate; name a folder there too")
    loaded = load_source(source, setting, view_set)
    model, info, _ = loaded
    precision = precision or loaded.plan.precision
    if backend_name != "auto":
        check_backend(backend_name, precision)  # before the minutes that a calibration takes
    images = None
    if calibrate:
        images = choose_images(calibrate, calibration_images, seed, info.spec, labels=labels, exclude=exclude)
        for sentence in images.left_out:
            click.echo(sentence, err=True)
    with PhaseProgress() as progress:
        plan = _plan(loaded, precision, images, method, progress)
    backend = choose_backend(backend_name, plan, model, info, lambda sentence: click.echo(sentence, err=True))
    with PhaseProgress() as progress:
        batch, tried = max_batch or backend.default_max_batch, tuple(ways(max_batch)) if tune else ()
        options = BuildOptions(batch, progress, share_crops, plugin, tried)
        manifest = build_bundle(
            model,
            info,
            backend,
            output,
            options,
            overwrite=overwrite,
            plan=plan,
            images=images.pixels if images else None,
        )
    click.echo(
        f"{output}: {backend.name} {manifest.backend_version}, {plan.precision}, {info.spec.views}{info.caution()}",
        err=True,
    )
    if reason := backend.why_not_run():
        click.echo(f"It cannot run here: {reason}", err=True)


def _plan(
    source: Source,
    precision: Precision,
    images: CalibrationImages | None,
    method: CalibrationMethod,
    progress: PhaseProgress,
) -> Plan:
    """The plan that the source brings, if it is of this precision and no images are given; else a new one."""
    if precision == "fp32":
        return FLOAT32
    if precision == source.plan.precision and images is None:
        source.plan.check_weights(source.model)
        return source.plan
    if precision == "fp16":
        pixels = check_pictures(source.info.spec.image_size) if images is None else images.pixels
        return plan_half(source.model, source.info, pixels, progress)
    if images is None:
        raise UsageError("int8 is scaled to real X-rays: name a folder of them with --calibrate, none of a test set")
    return plan_int8(source.model, source.info, images, method, progress)
