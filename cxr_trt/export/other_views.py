"""The same network behind other views."""

from dataclasses import replace

import onnx

from cxr_trt.errors import GraphError
from cxr_trt.export.graph_file import GraphInfo
from cxr_trt.export.optimise import CLASS_MAPS
from cxr_trt.export.rewrites import holds_network, read_network
from cxr_trt.export.scoring_graph import scoring_graph
from cxr_trt.views import ViewSet


def with_views(model: onnx.ModelProto, info: GraphInfo, view_set: ViewSet) -> tuple[onnx.ModelProto, GraphInfo]:
    """Build a scoring graph again from its own weights, with another view set.

    Args:
        model: as `cxr-trt export` writes it, with class maps or without.
        info: its metadata.
        view_set: may be the one that it has.

    Raises:
        GraphError: it holds another network, or its sizes do not go with these views.
    """
    if not holds_network(model):
        raise GraphError("the graph holds a network of another kind, whose views are fixed; leave --views out")
    info = replace(info, spec=replace(info.spec, views=view_set))
    if info.spec.repeats_itself:
        raise GraphError("the graph scores whole images, so all crops would be equal; leave --views out")
    weights, settings = read_network(model, info)
    class_maps = CLASS_MAPS in [output.name for output in model.graph.output]
    return scoring_graph(weights, settings, info.spec, info.to_metadata(), class_maps=class_maps), info
