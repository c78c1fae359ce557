"""The graph that an engine is built from: the scoring graph, rewritten exactly."""

import onnx

from cxr_trt.export.graph_file import GraphInfo
from cxr_trt.export.rewrites import Rewrites, holds_network, read_network
from cxr_trt.export.scoring_graph import scoring_graph

CLASS_MAPS = "class_maps"


def optimised(model: onnx.ModelProto, info: GraphInfo, *, share_crops: bool) -> onnx.ModelProto:
    """Build a scoring graph again from its own weights, with all rewrites.

    Args:
        model: as `cxr-trt export` writes it. One with another network inside is returned as it is.
        info: its metadata.
        share_crops: whether the early layers run once for all crops; see `cxr_trt.export.rewrites.Rewrites`.

    Returns:
        A model with the same inputs, outputs and metadata, and the same results but for rounding.
    """
    if not holds_network(model):
        return model
    weights, settings = read_network(model, info)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    class_maps = CLASS_MAPS in [output.name for output in model.graph.output]
    rewrites = Rewrites(share_crops=share_crops)
    return scoring_graph(weights, settings, info.spec, metadata, class_maps=class_maps, rewrites=rewrites)
