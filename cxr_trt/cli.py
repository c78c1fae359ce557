"""The command line: parsing and messages. Data go to standard output, everything else to standard error.

Exit codes: 0 all clean; 1 some files could not be scored or evaluated, or have no DICOM result, the rest is still
written; 2 no file could be scored, or a mistake in the call or its inputs; 130 stopped by Ctrl-C.
"""

import json
from pathlib import Path
from typing import Any

import click

from cxr_trt.errors import CxrTrtError
from cxr_trt.findings import FINDINGS
from cxr_trt.model.settings import SETTINGS
from cxr_trt.precision import CALIBRATION_METHODS, PRECISIONS
from cxr_trt.views import VIEW_SETS, ViewSet

BACKEND_NAMES = ("auto", "tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")


class Commands(click.Group):
    """Turns our exceptions, and the operating system's, into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CxrTrtError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except BrokenPipeError:
            raise  # click ends quietly: whoever read the output has had enough
        except OSError as error:
            click.echo(f"Error: {error.filename or 'standard output'}: {error.strerror}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(130)


path_option = click.Path(path_type=Path)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cxr-trt", prog_name="cxr-trt")
def main() -> None:
    """Score chest X-rays for the 14 findings of ChestX-ray14. Research use only; not a medical device."""


def graph_options(command: Any) -> Any:
    """Options of the commands that may start from a checkpoint."""
    for option in (
        click.option(
            "--setting", type=click.Choice(list(SETTINGS)), help="The network, if the checkpoint does not say."
        ),
        click.option(
            "--views",
            "view_set",
            type=click.Choice(VIEW_SETS),
            help="Default: what the source has.",
        ),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("checkpoint", type=path_option)
@click.option("-o", "--output", type=path_option, required=True, help="The ONNX file to write.")
@graph_options
@click.option("--class-maps/--no-class-maps", default=True, help="With the maps behind heat maps (default).")
@click.option("--images", type=path_option, multiple=True, help="Files or folders to check against PyTorch as well.")
@overwrite_option
def export(
    checkpoint: Path,
    output: Path,
    setting: str | None,
    view_set: ViewSet | None,
    class_maps: bool,
    images: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Turn CHECKPOINT into a scoring graph, checked against PyTorch before it is written."""
    from cxr_trt.engine.source import export_checked
    from cxr_trt.outputs import check_output, replacing

    check_output(output, (".onnx",), overwrite=overwrite)
    exported = export_checked(checkpoint, setting, view_set, class_maps, images)
    import onnx

    with replacing(output) as partial:
        onnx.save(exported.model, partial, format="protobuf")
    agreement = f"agrees with PyTorch on {exported.checked} images to {exported.difference:.1e}"
    click.echo(f"{output}: {agreement}{exported.info.caution()}", err=True)


@main.command()
@click.argument("source", type=path_option)
@click.option("-o", "--output", type=path_option, required=True, help="The bundle to write: NAME.cxr.")
@click.option("--backend", "backend_name", type=click.Choice(BACKEND_NAMES), default="auto", show_default=True)
@click.option("--max-batch", type=click.IntRange(1), help="X-rays in a call. Default: timed on a CPU, 8 on a GPU.")
@click.option("--share-crops/--no-share-crops", default=None, help="Compute what crops share once. Default: on a CPU.")
@click.option("--tune/--no-tune", default=True, help="On a CPU: time streams, batches and the like here (default).")
@click.option("--plugin/--no-plugin", default=True, help="TensorRT: the pooling as a CUDA plugin (default).")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: that of a bundle, else fp32.")
@click.option("--calibrate", type=path_option, multiple=True, help="X-rays for int8: folders or files, no test images.")
@click.option("--calibration-images", type=click.IntRange(16), default=256, show_default=True, help="How many of them.")
@click.option(
    "--calibration-method",
    "method",
    type=click.Choice(CALIBRATION_METHODS),
    default=CALIBRATION_METHODS[0],
    show_default=True,
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of images.")
@click.option("--labels", type=path_option, help="A CSV as for `evaluate` with the patients of --calibrate's images.")
@click.option("--exclude", type=path_option, help="The labels of the evaluation: do not calibrate on its patients.")
@graph_options
@overwrite_option
def build_engine(**options: Any) -> None:
    """Build an engine bundle from SOURCE: a checkpoint, a scoring graph (.onnx) or another bundle.

    An fp16 or int8 engine is built after measuring the network's activations on X-rays: int8 on those of --calibrate,
    fp16 on them or on built-in pictures.
    """
    from cxr_trt.engine.command import run

    run(**options)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=path_option)
@click.option(
    "-e",
    "--engine",
    "bundle",
    type=path_option,
    envvar="CXR_TRT_ENGINE",
    show_envvar=True,
    help="The bundle. Default: the only .cxr folder here.",
)
@click.option("-o", "--output", type=path_option, help="scores.csv or scores.parquet. Default: CSV to standard output.")
@click.option("--table", is_flag=True, help="Print a readable table (the default on a terminal without -o).")
@click.option("--heatmaps", type=path_option, help="Folder for heat maps, a PNG a finding.")
@click.option(
    "--dicom-results",
    type=path_option,
    help="Folder for a structured report and heat maps as DICOM, of DICOM files. They carry the PATIENT'S IDENTIFIERS "
    "(name, ID, study and others): nothing else that is written does. Needs pip install 'cxr-trt[dicom-results]'.",
)
@click.option(
    "--top",
    type=click.IntRange(1, len(FINDINGS)),
    default=3,
    show_default=True,
    help="How many findings get a heat map.",
)
@click.option("--raw-maps", is_flag=True, help="With --heatmaps: also the class maps of all findings, in maps.npz.")
@click.option("--full-size", is_flag=True, help="Heat maps as large as the file. Default: at most 768 pixels a side.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes. Default: one a processor.")
@click.option("--fresh", is_flag=True, help="Forget what an earlier run has scored.")
@overwrite_option
def score(**options: Any) -> None:
    """Score the X-rays in PATHS: folders, searched recursively, or files. PNG, JPEG and DICOM.

    Rows are kept in a journal beside the table. The same command again scores only what is new or changed.
    """
    from cxr_trt.signals import stoppable

    with stoppable():
        from cxr_trt.score.command import run

        click.get_current_context().exit(run(**options))


@main.command()
@click.argument("scores", type=path_option)
@click.argument("labels", type=path_option)
@click.option("--json", "json_path", type=path_option, help="Also write the result here, in full precision.")
@click.option("--curves", type=path_option, help="Also draw the ROC curves: a .png, .svg or .pdf file.")
@click.option("--reliability", type=path_option, help="Also draw the reliability diagram: a .png, .svg or .pdf file.")
@click.option("--boxes", type=path_option, help="A CSV of boxes, or NIH's: also evaluate where findings are found.")
@click.option("--maps", type=path_option, help="With --boxes: the folder of `score --heatmaps FOLDER --raw-maps`.")
@click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True, help="For the intervals.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling.")
@overwrite_option
def evaluate(**options: Any) -> None:
    """Compare SCORES, a table of `cxr-trt score`, with LABELS: AUC a finding, with intervals over patients.

    LABELS is a CSV with the columns `image`, optionally `patient_id`, and the 14 findings as 0 or 1. An image is
    matched to a path, or else by file name without suffix. A calibrated table gets its calibration error too.
    Boxes have the columns `image`, `finding`, `x`, `y`, `width` and `height`, in pixels of the scored file.
    """
    from cxr_trt.evaluate.command import run

    click.get_current_context().exit(run(**options))


@main.command()
@click.argument("scores", type=path_option)
@click.argument("labels", type=path_option)
@click.option("-e", "--engine", "bundle", type=path_option, required=True, help="The bundle that made SCORES.")
@click.option("--method", type=click.Choice(["platt", "isotonic"]), default="platt", show_default=True)
@click.option("--sensitivity", type=click.FloatRange(0, 1), help="At least this, for the thresholds.")
@click.option("--specificity", type=click.FloatRange(0, 1), help="Or at least this. Default: their largest sum.")
@overwrite_option
def calibrate(**options: Any) -> None:
    """Fit probabilities and thresholds to validation data, and keep them in the bundle: `score` then adds both.

    SCORES is a table that the bundle made, LABELS a CSV as for `evaluate`; neither may be the test data.
    """
    from cxr_trt.calibrate.command import run

    click.get_current_context().exit(run(**options))


@main.command()
@click.argument("scores", type=path_option)
@click.option("-o", "--output", type=path_option, required=True, help="The page to write: report.html.")
@click.option("--images", type=path_option, multiple=True, help="What was scored, for pictures: as for `score`.")
@click.option("--heatmaps", type=path_option, help="The folder of `score --heatmaps FOLDER --raw-maps`, for maps.")
@click.option("--pictures", type=click.IntRange(0), default=1000, show_default=True, help="The most X-rays with one.")
@click.option("--title", default="Chest X-ray scores", show_default=True)
@overwrite_option
def report(**options: Any) -> None:
    """Show SCORES, a table of `cxr-trt score`, as one HTML page that works offline."""
    from cxr_trt.report.command import run

    click.get_current_context().exit(run(**options))


@main.command()
@click.argument("a", type=path_option)
@click.argument("b", type=path_option)
@click.argument("images", nargs=-1, required=True, type=path_option)
@click.option("--labels", type=path_option, help="A CSV as for `evaluate`: compares the AUC too.")
@click.option("--json", "json_path", type=path_option, help="Also write the result here, in full precision.")
@click.option("--max-auc-drop", type=click.FloatRange(0), help="Exit code 1 if the mean AUC of B falls by more.")
@click.option("--resamples", type=click.IntRange(0), default=1000, show_default=True, help="For the intervals.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling.")
@graph_options
@overwrite_option
def compare(**options: Any) -> None:
    """Score IMAGES with A and B, each a bundle or a checkpoint, and say how far they lie apart.

    A checkpoint is run in PyTorch, with the views of the bundle it is compared with.
    """
    from cxr_trt.evaluate.compare import run

    click.get_current_context().exit(run(**options))


@main.command()
@click.argument("bundle", type=path_option)
@click.argument("paths", nargs=-1, type=path_option)
@click.option("--runs", type=click.IntRange(1), default=10, show_default=True, help="Of the engine alone.")
@click.option("--workers", type=click.IntRange(1), help="Decoding processes. Default: one a processor.")
@click.option("--json", "json_path", type=path_option, help="Also write the result here, in full precision.")
@overwrite_option
def benchmark(**options: Any) -> None:
    """Say how fast BUNDLE is here: the engine alone, and from the files in PATHS to a table."""
    from cxr_trt.benchmark.command import run

    run(**options)


@main.command()
@click.argument("bundle", type=path_option)
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Say what BUNDLE is, after checking every file of it against its hash."""
    from cxr_trt.calibrate.calibration import read_calibration
    from cxr_trt.engine.manifest import read_manifest
    from cxr_trt.report.terminal import show_facts

    manifest = read_manifest(bundle)
    calibration = read_calibration(bundle, manifest.fingerprint)
    if as_json:
        click.echo(manifest.to_json(), nl=False)
        return
    spec = manifest.graph.spec
    views = f"{len(spec.view_list())} of {spec.view_size} pixels from {spec.image_size}"
    windows = f", {len(spec.windows)} windows of {spec.crop_size} in each" if len(spec.windows) > 1 else ""
    show_facts(
        {
            "bundle": f"{bundle} (all {len(manifest.files)} files unchanged)",
            "fingerprint": manifest.fingerprint,
            "weights": f"{manifest.graph.weights}, checkpoint {manifest.graph.checkpoint_sha256[:16]}",
            "backend": f"{manifest.backend} {manifest.backend_version}, {manifest.precision}",
            "settings": json.dumps(manifest.settings),
            "views": f"{spec.views}: {views}{windows}",
            "pooling": f"k_max {spec.k_max}, k_min {spec.k_min}, alpha {spec.alpha}",
            "preprocessing": spec.preprocessing,
            "calibration": calibration.summary() if calibration else "none",
        }
    )


@main.command()
def doctor() -> None:
    """Say what this machine can build and run, and the command for each missing part."""
    from cxr_trt import doctor

    doctor.report()
