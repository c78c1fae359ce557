"""Exporting a checkpoint as a verified scoring graph."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from cxr_trt.errors import CheckpointError
from cxr_trt.export.export import Export
from cxr_trt.export.from_module import export_crop_network
from cxr_trt.export.pictures import check_pictures
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.export.verify import verify
from cxr_trt.images.load import load_images
from cxr_trt.model.checkpoint import load_checkpoint
from cxr_trt.model.network import Network
from cxr_trt.model.scorer import Scorer
from cxr_trt.views import ViewSet


def export_checkpoint(
    path: Path, *, setting: str | None = None, view_set: ViewSet | None = None, images: Sequence[Path] = ()
) -> Export:
    """Make the scoring graph of a checkpoint and compare it with PyTorch.

    Args:
        path: the checkpoint, see `load_checkpoint`.
        setting: the network's setting, if the checkpoint does not say it.
        view_set: which views the graph cuts from each image; None means the checkpoint's own.
        images: X-rays to compare on, in addition to the built-in pictures.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or does not allow these views.
        GraphError: graph and network disagree.
        UsageError: one of the images cannot be read.
    """
    checkpoint = load_checkpoint(path, setting)
    spec = replace(checkpoint.spec, views=view_set or checkpoint.spec.views)
    if spec.repeats_itself:
        raise CheckpointError(f"{path}: scores whole images, so all crops would be equal; leave out --views")
    if not isinstance(checkpoint.network, Network):
        network, maps = checkpoint.network, checkpoint.maps
        return export_crop_network(network, maps, spec, checkpoint.weights, checkpoint.sha256, path, images)
    scorer = Scorer(checkpoint.network, spec)
    weights = {key: tensor.numpy() for key, tensor in scorer.network.state_dict().items()}
    info = GraphInfo.of_this_version(spec, checkpoint.weights, checkpoint.sha256)
    graph = ScoringGraph.from_network(weights, scorer.network.settings, info)
    onnx.checker.check_model(graph.model, full_check=True)
    pictures = check_pictures(spec.image_size)
    if images:
        pictures = np.concatenate([pictures, load_images(images, spec.image_size, spec.fit)])
    return Export(graph, len(pictures), verify(graph.model, scorer, pictures))
