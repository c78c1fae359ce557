"""What an engine can be built from: a checkpoint, a scoring graph, or another bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import onnx

from cxr_trt.engine.bundle import MODEL
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import BackendError, UsageError
from cxr_trt.export.graph_file import GraphInfo, read_scoring_graph
from cxr_trt.export.other_views import with_views
from cxr_trt.export.plan import FLOAT32, PLAN, Plan
from cxr_trt.model.settings import CHECKPOINT_SUFFIXES
from cxr_trt.score.files import find_files
from cxr_trt.views import ViewSet

if TYPE_CHECKING:
    from cxr_trt.export.export import Export


class Source(NamedTuple):
    """A scoring graph, its metadata, and the precision of the bundle that it comes from."""

    model: onnx.ModelProto
    info: GraphInfo
    plan: Plan


def load_source(source: Path, setting: str | None, view_set: ViewSet | None) -> Source:
    """Read what an engine is to be built from.

    Raises:
        CxrTrtError: it is nothing of the kind, or damaged.
    """
    if source.suffix.lower() in CHECKPOINT_SUFFIXES:
        exported = export_checked(source, setting, view_set, class_maps=True, images=())
        return Source(exported.model, exported.info, FLOAT32)
    plan = FLOAT32
    if source.is_dir():
        if read_manifest(source).precision != "fp32":
            plan = Plan.from_json((source / PLAN).read_text())
        graph = source / MODEL
    elif not source.is_file():
        raise UsageError(f"{source}: no such checkpoint, ONNX file or bundle")
    elif source.suffix.lower() != ".onnx":
        kinds = ", ".join(CHECKPOINT_SUFFIXES)
        raise UsageError(f"{source}: neither a checkpoint ({kinds}) nor an ONNX file (.onnx) nor a bundle; rename it")
    else:
        graph = source
    if setting:
        raise UsageError("--setting is fixed in an exported graph; give the checkpoint instead")
    model, info = read_scoring_graph(graph)
    if view_set:
        model, info = with_views(model, info, view_set)
    return Source(model, info, plan)


def export_checked(
    checkpoint: Path, setting: str | None, view_set: ViewSet | None, class_maps: bool, images: tuple[Path, ...]
) -> "Export":
    """Make the scoring graph of a checkpoint, saying so. Raises CxrTrtError."""
    try:
        from cxr_trt.export.export import export_checkpoint
    except ModuleNotFoundError as error:
        raise BackendError(f"reading a checkpoint needs {error.name}: pip install 'cxr-trt[export]'") from error
    files = [source.path for source in find_files(images).sources] if images else []
    click.echo(f"exporting {checkpoint} and comparing it with PyTorch ...", err=True)
    return export_checkpoint(checkpoint, setting=setting, view_set=view_set, class_maps=class_maps, images=files)
