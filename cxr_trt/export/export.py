"""From a checkpoint to a verified scoring graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from cxr_trt.errors import CheckpointError
from cxr_trt.export.graph_file import GraphInfo
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import scoring_graph
from cxr_trt.export.verify import verify
from cxr_trt.images.load import load_images
from cxr_trt.model.checkpoint import SIZES, load_checkpoint
from cxr_trt.model.scorer import Scorer
from cxr_trt.spec import Specification
from cxr_trt.views import ViewSet


@dataclass(frozen=True)
class Export:
    """A scoring graph that agrees with PyTorch on `checked` images to within `difference`, at most 1e-5."""

    model: onnx.ModelProto
    info: GraphInfo
    checked: int
    difference: float


def export_checkpoint(
    path: Path,
    *,
    setting: str | None,
    view_set: ViewSet,
    class_maps: bool,
    images: Sequence[Path] = (),
) -> Export:
    """Make the scoring graph of a checkpoint and hold it against PyTorch.

    Args:
        path: the checkpoint, as `load_checkpoint` takes it.
        setting: the network's setting, where the checkpoint does not say it.
        view_set: which views the graph cuts from each image.
        class_maps: whether the graph gives class maps as well.
        images: X-rays to compare on, besides the built-in pictures.

    Raises:
        CheckpointError: the checkpoint does not fit, or was trained at another size.
        GraphError: graph and network disagree.
        UsageError: one of the images cannot be read.
    """
    checkpoint = load_checkpoint(path, setting)
    settings = checkpoint.network.settings
    if checkpoint.sizes != SIZES:
        raise CheckpointError(
            f"{path}: was trained on crops of {checkpoint.sizes[1]} from {checkpoint.sizes[0]} pixels; only {SIZES[1]} "
            f"from {SIZES[0]} can be exported: train it on those"
        )
    spec = Specification(views=view_set, k_max=settings.k_max, k_min=settings.k_min, alpha=settings.alpha)
    info = GraphInfo.of(spec, checkpoint.trained, checkpoint.sha256)
    weights = {key: tensor.numpy() for key, tensor in checkpoint.network.state_dict().items()}
    model = scoring_graph(weights, settings, spec, info.to_metadata(), class_maps=class_maps)
    onnx.checker.check_model(model, full_check=True)
    pictures = check_pictures(spec.image_size)
    if images:
        pictures = np.concatenate([pictures, load_images(images, spec.image_size)])
    return Export(model, info, len(pictures), verify(model, Scorer(checkpoint.network, spec), pictures))
