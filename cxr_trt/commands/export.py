"""The command `cxr-trt export`: makes a scoring graph from a checkpoint."""

from pathlib import Path

import click

from cxr_trt.commands.options import PATH, graph_options, overwrite_option
from cxr_trt.commands.sources import export_and_verify
from cxr_trt.outputs import check_output, replacing
from cxr_trt.views import ViewSet


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The ONNX file to write.")
@graph_options
@click.option(
    "--images", type=PATH, multiple=True, help="X-rays for the comparison with PyTorch, besides built-in pictures."
)
@overwrite_option
def export(
    checkpoint: Path,
    output: Path,
    setting: str | None,
    view_set: ViewSet | None,
    images: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Turn CHECKPOINT into a scoring graph, which is compared with PyTorch before it is written."""
    check_output(output, (".onnx",), overwrite=overwrite)
    exported = export_and_verify(checkpoint, setting, view_set, images)
    with replacing(output) as partial:
        exported.graph.save(partial)
    agreement = f"agrees with PyTorch on {exported.checked} images to {exported.difference:.1e}"
    click.echo(f"{output}: {agreement}{exported.graph.info.caution()}", err=True)
