"""The command `cxr-trt build-engine`: makes an engine bundle from a checkpoint, a scoring graph or a bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

import click

from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, graph_options, overwrite_option
from cxr_trt.commands.progress import PhaseProgress
from cxr_trt.commands.sources import load_source
from cxr_trt.engine.backend import Backend, BuildOptions, Compatibility
from cxr_trt.engine.build import BuildRequest, build_bundle, check_target
from cxr_trt.engine.choice import able_backends, check_backend, choose_backend
from cxr_trt.engine.cpu.tuning import cpu_configs
from cxr_trt.engine.gpu.tensorrt import TensorRTBackend
from cxr_trt.engine.precision_choice import build_fastest, offered_precisions
from cxr_trt.engine.registry import BACKENDS
from cxr_trt.errors import UsageError
from cxr_trt.findings import listed
from cxr_trt.outputs import check_output
from cxr_trt.precision import CALIBRATION_METHODS, PRECISIONS, CalibrationMethod, Precision
from cxr_trt.precision.calibration_images import MIN_CALIBRATION_IMAGES, choose_images
from cxr_trt.precision.planning import has_fixed_precision, plan_precision
from cxr_trt.views import ViewSet


@click.command()
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, help="The bundle to write: NAME.cxr. Default: the name of SOURCE, here.")
@click.option(
    "--backend",
    "backend_name",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="The software that runs the engine. auto: the fastest that can run here.",
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    help="The most X-rays per call of the engine. Default: measured on a CPU, 8 on a GPU.",
)
@click.option(
    "--share-crops/--no-share-crops",
    default=None,
    help="Compute overlapping crops only once. On by default on CPUs; off by default on GPUs, because it has not been "
    "measured there.",
)
@click.option(
    "--tune/--no-tune", default=True, help="On a CPU: measure which streams, batch and layout are fastest (default)."
)
@click.option(
    "--plugin/--no-plugin",
    default=None,
    help="TensorRT: run the pooling as a CUDA plugin. Default: only if it sorts (k above 1) and the plugin is built.",
)
@click.option(
    "--compatible",
    type=click.Choice(get_args(Compatibility)),
    help="TensorRT: an engine for other GPUs too, of the same compute capability or from Ampere on; it may be slower.",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="TensorRT: an engine that later versions of TensorRT run too; it is larger, and may be slower.",
)
@click.option(
    "--single-xrays",
    is_flag=True,
    help="TensorRT: choose kernels for single X-rays too, beside those for full batches; building takes longer.",
)
@click.option(
    "--fast-build", is_flag=True, help="TensorRT: take the first kernels that work; the engine may be slower."
)
@click.option("--memory-limit", type=click.IntRange(1), help="TensorRT: MiB of scratch memory for kernels.")
@click.option(
    "--trtexec",
    type=PATH,
    help="TensorRT: also write the graph that the engine is built from (.onnx), and say how trtexec builds it.",
)
@click.option(
    "--precision",
    "wanted",
    type=click.Choice(["auto", *PRECISIONS]),
    help="Default: that of a source bundle, else fp32. auto: the fastest here whose probabilities agree with float32; "
    "int8 takes part if it is calibrated.",
)
@click.option(
    "--calibrate", type=PATH, multiple=True, help="X-rays to calibrate int8 with: folders or files, not test images."
)
@click.option(
    "--calibration-images",
    type=click.IntRange(MIN_CALIBRATION_IMAGES),
    default=256,
    show_default=True,
    help="How many of them to use.",
)
@click.option(
    "--calibration-method",
    "method",
    type=click.Choice(CALIBRATION_METHODS),
    default=CALIBRATION_METHODS[0],
    show_default=True,
    help="How int8 ranges are chosen.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for choosing images.")
@click.option("--labels", type=PATH, help="A CSV as for `evaluate`, with the patients of the calibration images.")
@click.option(
    "--exclude",
    type=PATH,
    help="The labels of the test set, whose images and patients are left out of the calibration.",
)
@graph_options
@overwrite_option
@message_options
def build_engine(
    source: Path,
    output: Path | None,
    backend_name: str,
    max_batch: int | None,
    share_crops: bool | None,
    tune: bool,
    plugin: bool | None,
    compatible: Compatibility | None,
    version_compatible: bool,
    single_xrays: bool,
    fast_build: bool,
    memory_limit: int | None,
    trtexec: Path | None,
    wanted: str | None,
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
    """Build an engine bundle from SOURCE: a checkpoint, a scoring graph (.onnx), another bundle, `edge` or `paper`.

    `edge` and `paper` are the demonstration networks that come with cxr-trt: a light one, and the paper's.

    For fp16 and int8, the network's activations are measured first: for int8 on the X-rays of --calibrate, for fp16 on
    these or on built-in pictures.
    """
    output = output or Path(f"{source.stem}.cxr")
    check_target(output, overwrite)
    if trtexec:
        check_output(trtexec, (".onnx",), overwrite=overwrite)
    if output.suffix != ".cxr":
        raise UsageError(f"{output}: the name of a bundle must end in .cxr; add it")
    if (labels or exclude) and not calibrate:
        raise UsageError("--labels and --exclude choose among the images of --calibrate; add --calibrate FOLDER")
    gpu_options = {
        "--plugin": bool(plugin),
        "--compatible": compatible is not None,
        "--version-compatible": version_compatible,
        "--single-xrays": single_xrays,
        "--fast-build": fast_build,
        "--memory-limit": memory_limit is not None,
        "--trtexec": trtexec is not None,
    }
    graph, previous_plan = load_source(source, setting, view_set)
    if backend_name == "tensorrt-rtx" and compatible:
        raise UsageError("--compatible is for --backend tensorrt: engines of tensorrt-rtx run on every RTX GPU")
    if backend_name == "tensorrt-rtx" and version_compatible:
        raise UsageError("--version-compatible is for --backend tensorrt: tensorrt-rtx runs engines of its own version")
    if backend_name == "tensorrt-rtx" and trtexec:
        raise UsageError("--trtexec is for --backend tensorrt: tensorrt-rtx has another program")
    if backend_name != "auto":
        _check_gpu_options(gpu_options, [BACKENDS[backend_name]])
    if wanted == "auto":
        backends = able_backends(backend_name, "fp32", say)
        if reason := backends[0].why_not_run():
            raise UsageError(f"--precision auto times engines, which cannot run here: {reason}; name a precision")
        is_calibrated = bool(calibrate) or previous_plan.precision == "int8"
        precisions = offered_precisions(backends, is_calibrated=is_calibrated, is_fixed=has_fixed_precision(graph))
    else:
        precisions = [cast(Precision, wanted or previous_plan.precision)]
        if backend_name != "auto":
            check_backend(backend_name, precisions[0])  # before the minutes that a calibration takes
    images = None
    if calibrate:
        images = choose_images(calibrate, calibration_images, seed, graph.spec, labels=labels, exclude=exclude)
        for sentence in images.left_out:
            say(sentence)
    with PhaseProgress() as progress:
        plans = [plan_precision(name, graph, previous_plan, images, method, progress) for name in precisions]
    if wanted == "auto":
        engines = [(plan, backend) for plan in plans for backend in backends if plan.precision in backend.precisions]
    else:
        engines = [(plans[0], choose_backend(backend_name, plans[0], graph, say))]
    _check_gpu_options(gpu_options, [backend for _, backend in engines])
    if tune and any(backend.on_cpu for _, backend in engines):
        say("trying what is fastest on this CPU (about 20 s; --no-tune leaves it out)")
    said: list[str] = []
    with PhaseProgress() as progress:
        requests = [
            BuildRequest(
                graph,
                backend,
                plan,
                BuildOptions(
                    max_batch or backend.default_max_batch,
                    progress,
                    plugin,
                    memory_limit=memory_limit and memory_limit << 20,
                    fast_build=fast_build,
                    compatible=compatible,
                    version_compatible=version_compatible,
                    single_xrays=single_xrays,
                ),
                share_crops,
                tuple(cpu_configs(max_batch)) if tune else (),
                images.pixels if images else None,
            )
            for plan, backend in engines
        ]
        if wanted == "auto":
            request, manifest = build_fastest(requests, output, said.append, overwrite=overwrite)
        else:
            request, manifest = requests[0], build_bundle(requests[0], output, overwrite=overwrite)
    for sentence in said:
        say(sentence)
    backend, plan = request.backend, request.plan
    engine = f"{backend.name} {manifest.backend_version}, {plan.precision}, {graph.spec.views}"
    say(f"{output}: {engine}{graph.info.caution()}")
    if backend.on_cpu and plan.precision == "fp32" and not has_fixed_precision(graph):
        others = [name for name in backend.precisions if name != "fp32" and (name != "fp16" or backend.sets_float16)]
        say(f"on this processor {backend.name} also runs {listed(others)}: see --precision and --calibrate")
    if trtexec and isinstance(backend, TensorRTBackend):
        model, options = request.for_backend()
        say(f"the same with NVIDIA's program: {backend.write_for_trtexec(model, trtexec, options)}")
    if reason := backend.why_not_run():
        say(f"it cannot run here: {reason}")
    elif not wanted and plan.precision == "fp32" and not backend.on_cpu:
        say("other precisions may be faster on this GPU: --precision auto builds and times each")


def _check_gpu_options(given: Mapping[str, bool], backends: Sequence[Backend]) -> None:
    """Raise UsageError if an option that only TensorRT has was given for another backend."""
    options = [option for option, is_given in given.items() if is_given]
    if options and not any(isinstance(backend, TensorRTBackend) for backend in backends):
        raise UsageError(
            f"{options[0]} is for TensorRT, but the engine is for {backends[0].name}; leave it out, or add "
            "--backend tensorrt"
        )
