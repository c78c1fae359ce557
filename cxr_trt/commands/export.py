"""The command `cxr-trt export`: makes a scoring graph from a checkpoint or from a network in an ONNX file."""

from pathlib import Path

import click

from cxr_trt.commands.options import PATH, graph_options, overwrite_option
from cxr_trt.commands.sources import export_and_verify, export_network_file
from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_output, replacing
from cxr_trt.views import ViewSet


@click.command()
@click.argument("network", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The ONNX file to write.")
@click.option("--card", type=PATH, help="The card of the network, a TOML file: for an ONNX file.")
@graph_options
@click.option(
    "--images", type=PATH, multiple=True, help="X-rays to compare graph and network on, besides built-in pictures."
)
@overwrite_option
def export(
    network: Path,
    output: Path,
    card: Path | None,
    setting: str | None,
    view_set: ViewSet | None,
    images: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Turn NETWORK into a scoring graph, which is compared with the network before it is written.

    NETWORK is a checkpoint, or with --card a network of any kind in an ONNX file.
    """
    check_output(output, (".onnx",), overwrite=overwrite)
    if network.suffix.lower() == ".onnx":
        if card is None:
            raise UsageError(f"{network}: an ONNX file needs a card that says what its outputs are: add --card FILE")
        if setting:
            raise UsageError("--setting is for checkpoints; leave it out")
        exported = export_network_file(network, card, view_set, images)
        origin = network.name
    else:
        if card is not None:
            raise UsageError("--card is for networks in ONNX files; leave it out")
        exported = export_and_verify(network, setting, view_set, images)
        origin = "PyTorch"
    with replacing(output) as partial:
        exported.graph.save(partial)
    agreement = f"agrees with {origin} on {exported.checked} images to {exported.difference:.1e}"
    click.echo(f"{output}: {agreement}{exported.graph.info.caution()}", err=True)
    if not exported.graph.has_class_maps:
        click.echo(
            "it has no class maps, so there will be no heat maps: the network does not end in a linear layer on the "
            "mean of its features, or the maps of its views do not lie on one grid",
            err=True,
        )
