"""Building the scoring graph of the paper's network and its relatives, from images to probabilities.

It is built layer by layer from a state dict instead of being traced, so tensors have the names of their layers, and the
order in which views are cut, scored and merged is defined only here.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy.typing as npt
import onnx

from cxr_trt.export.backbone import EARLY_CHANNELS, early, late, transfer
from cxr_trt.export.builder import OPSET, GraphBuilder
from cxr_trt.export.crop_sharing import EARLY_STRIDE, ImagePart, Piece, crop_parts, pieces_of_views, worth_sharing
from cxr_trt.export.framing import (
    VIEW,
    add_class_maps,
    add_probabilities,
    cut_parts,
    graph_inputs,
    graph_outputs,
    grey_pixels,
)
from cxr_trt.export.pooling import POOLING_DOMAIN, POOLING_DOMAIN_VERSION, POOLING_OPERATOR, max_min_pool_function
from cxr_trt.export.rewrites import NO_REWRITES, Rewrites, average_maps, fold_norms, split_first_convs
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import Specification

EARLY_MAPS = "early"  # the tensor with the maps before the first gate, if crops share what precedes them


def build_graph(
    weights: Mapping[str, npt.NDArray[Any]],
    settings: ModelSettings,
    spec: Specification,
    metadata: Mapping[str, str],
    *,
    class_maps: bool,
    rewrites: Rewrites = NO_REWRITES,
) -> onnx.ModelProto:
    """Build the scoring graph.

    Args:
        weights: the state dict of `cxr_trt.model.network.Network`, as NumPy arrays.
        settings: the settings of that network.
        spec: views, normalisation and pooling.
        metadata: written into the model unchanged.
        class_maps: whether the graph has the output `class_maps`.
        rewrites: which exact rewrites to apply. Without any, the graph's weights are those of the state dict.

    Returns:
        A model with input `images` uint8 [N, 1, height, width], output `probabilities` float32 [N, findings] and, if
        requested, output `class_maps` float32 [N, findings, h, w] over `spec.class_map_region`.
    """
    if rewrites.average_maps:
        weights, settings = average_maps(weights, settings)
    if rewrites.fold_norms:
        weights = fold_norms(weights)
    if rewrites.chunk_concats:
        weights = split_first_convs(weights)
    if spec.pooling is None:
        raise ValueError("the specification is for a network without this project's pooling")
    graph = GraphBuilder(weights)
    features = late(graph, _early_maps(graph, spec, rewrites), settings, rewrites)
    maps = transfer(graph, features, settings, spec)
    attributes: dict[str, Any] = spec.pooling._asdict()
    windows = spec.windows if len(spec.windows) > 1 else ()
    if windows:
        attributes["windows"] = list(chain(*windows))
    scores = graph.node(POOLING_OPERATOR, [maps], "pool", domain=POOLING_DOMAIN, **attributes)
    add_probabilities(graph, scores, spec)
    if class_maps:
        add_class_maps(graph, maps, spec)
    return graph.model(
        graph_inputs(spec),
        graph_outputs(spec, class_maps=class_maps),
        [max_min_pool_function(OPSET, len(windows))],
        {"": OPSET, POOLING_DOMAIN: POOLING_DOMAIN_VERSION},
        metadata,
    )


def _early_maps(graph: GraphBuilder, spec: Specification, rewrites: Rewrites) -> str:
    """The maps before the first gate: [N * views, 128, cells, cells], where all views of an image are adjacent."""
    grey = grey_pixels(graph)
    geometry = spec.view_list(), spec.image_size, spec.view_size
    if not rewrites.share_crops or not worth_sharing(*geometry):
        return early(graph, cut_parts(graph, grey, crop_parts(*geometry), spec, VIEW), rewrites)
    sources = pieces_of_views(*geometry)
    maps_of_parts: dict[ImagePart, tuple[str, int]] = {}  # tensor [N, parts, 128, h, w], and index of the part in it
    by_size: dict[tuple[int, int], list[ImagePart]] = {}
    for piece in (piece for lines in sources for line in lines for piece in line):
        same = by_size.setdefault((piece.source.height, piece.source.width), [])
        if piece.source not in same:
            same.append(piece.source)
    for (height, width), parts in by_size.items():
        name = f"part{height}x{width}"
        pixels = cut_parts(graph, grey, parts, spec, name)
        with graph.scope(name):
            maps = early(graph, pixels, rewrites)
        shape = [-1, len(parts), EARLY_CHANNELS, height // EARLY_STRIDE, width // EARLY_STRIDE]
        by_image = graph.reshape(maps, f"{name}.by_image", shape)
        maps_of_parts |= {part: (by_image, i) for i, part in enumerate(parts)}
    joined = [_join(graph, lines, maps_of_parts, f"view{i}") for i, lines in enumerate(sources)]
    cells = [side // EARLY_STRIDE for side in spec.view_size]
    return graph.reshape(graph.concat(joined, "views", 1), EARLY_MAPS, [-1, EARLY_CHANNELS, *cells])


def _join(
    graph: GraphBuilder, lines: list[list[Piece]], maps_of_parts: Mapping[ImagePart, tuple[str, int]], name: str
) -> str:
    """Assemble a view's early map [N, 1, 128, cells, cells] from its pieces."""
    rows = []
    for i, line in enumerate(lines):
        pieces = []
        for j, piece in enumerate(line):
            maps, index = maps_of_parts[piece.source]
            starts, ends = [index, piece.top, piece.left], [index + 1, piece.bottom, piece.right]
            pieces.append(graph.slice(maps, f"{name}.piece{i}{j}", [1, 3, 4], starts, ends))
        rows.append(graph.concat(pieces, f"{name}.row{i}", 4))
    return graph.concat(rows, f"{name}.early", 3)
