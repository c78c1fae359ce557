"""The command `cxr-trt export`: makes a scoring graph from a checkpoint or from a network in an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxr_trt.commands.messages import message_options, say
from cxr_trt.commands.options import PATH, graph_options, overwrite_option
from cxr_trt.commands.sources import export_and_verify, export_library_checkpoint, export_network_file
from cxr_trt.errors import UsageError
from cxr_trt.outputs import check_output, replacing
from cxr_trt.views import ViewSet
from cxr_trt.words import quantity

if TYPE_CHECKING:
    from cxr_trt.model.families import Library


@click.command()
@click.argument("network", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The ONNX file to write.")
@click.option("--card", type=PATH, help="The network's card, a TOML file: for an ONNX file, --timm and --torchvision.")
@click.option("--timm", metavar="NAME", help="The checkpoint is for timm's network of this name.")
@click.option("--torchvision", metavar="NAME", help="The checkpoint is for torchvision's network of this name.")
@graph_options
@click.option(
    "--images", type=PATH, multiple=True, help="X-rays to compare graph and network on, besides built-in pictures."
)
@overwrite_option
@message_options
def export(
    network: Path,
    output: Path,
    card: Path | None,
    timm: str | None,
    torchvision: str | None,
    setting: str | None,
    view_set: ViewSet | None,
    images: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Turn NETWORK into a scoring graph, which is compared with the network before it is written.

    NETWORK is a checkpoint: of this project, CheXNet or torchxrayvision, or with --timm or --torchvision and a card of
    one of their networks. With a card it may also be a network of any kind in an ONNX file.
    """
    check_output(output, (".onnx",), overwrite=overwrite)
    is_onnx = network.suffix.lower() == ".onnx"
    libraries: dict[Library, str] = {}
    if timm:
        libraries["timm"] = timm
    if torchvision:
        libraries["torchvision"] = torchvision
    if len(libraries) + is_onnx + bool(setting) > 1:
        raise UsageError("an ONNX file, --timm, --torchvision and --setting exclude each other; choose one")
    if card is None and (is_onnx or libraries):
        raise UsageError(f"{network}: needs a card that says what the network's outputs are: add --card FILE.toml")
    if is_onnx and card:
        exported = export_network_file(network, card, view_set, images)
    elif libraries and card:
        ((library, name),) = libraries.items()
        exported = export_library_checkpoint(network, library, name, card, view_set, images)
    elif card:
        raise UsageError("--card is for ONNX files, --timm and --torchvision; leave it out")
    else:
        exported = export_and_verify(network, setting, view_set, images)
    origin = network.name if is_onnx else "PyTorch"
    with replacing(output) as partial:
        exported.graph.save(partial)
    agreement = f"agrees with {origin} on {quantity(exported.checked, 'image')} to {exported.difference:.1e}"
    say(f"{output}: {agreement}{exported.graph.info.caution()}")
    if not exported.graph.has_class_maps:
        say(
            "it has no class maps, so there will be no heat maps: the network does not end in a linear layer on the "
            "mean of its features, or the maps of its views do not lie on one grid"
        )
