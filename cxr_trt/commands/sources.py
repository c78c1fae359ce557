"""What an engine can be built from: a checkpoint, a scoring graph, or another bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cxr_trt.commands.messages import say
from cxr_trt.engine.manifest import GRAPH_FILE, read_manifest
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export.scoring_graph import ScoringGraph
from cxr_trt.images.files import find_files
from cxr_trt.model.settings import CHECKPOINT_SUFFIXES
from cxr_trt.precision.plan import FLOAT32, PRECISION_FILE, PrecisionPlan
from cxr_trt.views import ViewSet

if TYPE_CHECKING:
    from cxr_trt.export.export import Export
    from cxr_trt.model.families import Library

MODELS = Path(__file__).parents[1] / "models"
SHIPPED = {name: MODELS / f"{name}.onnx" for name in ("edge", "paper")}
"""The demonstration networks that come with the package, by their names."""
DEFAULT_NETWORK = "edge"


class BuildSource(NamedTuple):
    """A scoring graph, and the precision plan of the bundle that it comes from; float32 for other sources."""

    graph: ScoringGraph
    plan: PrecisionPlan


def load_source(source: Path, setting: str | None, view_set: ViewSet | None) -> BuildSource:
    """Read a checkpoint, a scoring graph or a bundle.

    Args:
        source: the file or folder.
        setting: the kind of network, if the checkpoint does not say it.
        view_set: the crops to score; by default those of the source.

    Raises:
        CxrTrtError: it is none of these, or damaged.
    """
    if source.suffix.lower() in CHECKPOINT_SUFFIXES:
        return BuildSource(export_and_verify(source, setting, view_set).graph, FLOAT32)
    plan = FLOAT32
    if str(source) in SHIPPED and not source.exists():
        source = SHIPPED[str(source)]
    if source.is_dir():
        if read_manifest(source).precision != "fp32":
            plan = PrecisionPlan.from_json((source / PRECISION_FILE).read_text())
        path = source / GRAPH_FILE
    elif not source.is_file():
        shipped = " or ".join(SHIPPED)
        raise UsageError(f"{source}: no such checkpoint, ONNX file or bundle, and no shipped network ({shipped})")
    elif source.suffix.lower() != ".onnx":
        kinds = ", ".join(CHECKPOINT_SUFFIXES)
        raise UsageError(
            f"{source}: not a checkpoint ({kinds}), an ONNX file (.onnx) or a bundle; if it is one, rename it"
        )
    else:
        path = source
    if setting:
        raise UsageError("--setting is fixed in an exported graph; build from the checkpoint instead")
    graph = ScoringGraph.load(path)
    return BuildSource(graph.with_views(view_set) if view_set else graph, plan)


def export_and_verify(
    checkpoint: Path, setting: str | None, view_set: ViewSet | None, images: tuple[Path, ...] = ()
) -> "Export":
    """Export a checkpoint and compare the graph with PyTorch, also on these images. Raises CxrTrtError."""
    try:
        from cxr_trt.export.from_checkpoint import export_checkpoint
        from cxr_trt.export.from_module import export_family_network, xrv_resnet_spec
        from cxr_trt.model.families import load_xrv_resnet
    except ModuleNotFoundError as error:
        raise BackendError(f"reading a checkpoint needs {error.name}: pip install 'cxr-trt[export]'") from error
    say(f"exporting {checkpoint} and comparing it with PyTorch ...")
    files = _files(images)
    if network := load_xrv_resnet(checkpoint):
        return export_family_network(network, xrv_resnet_spec(network), checkpoint, view_set, files)
    return export_checkpoint(checkpoint, setting=setting, view_set=view_set, images=files)


def export_network_file(network: Path, card: Path, view_set: ViewSet | None, images: tuple[Path, ...] = ()) -> "Export":
    """Export the network of an ONNX file and compare the graph with that file, also on these images.

    Raises:
        CxrTrtError: see `cxr_trt.export.from_network.export_onnx`.
    """
    from cxr_trt.export.from_network import export_onnx

    say(f"exporting {network} and comparing it with ONNX Runtime running that file ...")
    return export_onnx(network, card, view_set=view_set, images=_files(images))


def export_library_checkpoint(
    checkpoint: Path,
    library: "Library",
    name: str,
    card: Path,
    view_set: ViewSet | None,
    images: tuple[Path, ...] = (),
) -> "Export":
    """Export a checkpoint of a library's network and compare the graph with PyTorch, also on these images.

    Raises:
        CxrTrtError: see `cxr_trt.export.from_module.export_library_network`.
    """
    try:
        from cxr_trt.export.from_module import export_library_network
    except ModuleNotFoundError as error:
        raise BackendError(f"reading a checkpoint needs {error.name}: pip install 'cxr-trt[export]'") from error
    say(f"exporting {checkpoint} and comparing it with PyTorch ...")
    return export_library_network(checkpoint, library, name, card, view_set=view_set, images=_files(images))


def _files(paths: tuple[Path, ...]) -> list[Path]:
    return [source.path for source in find_files(paths).sources] if paths else []
