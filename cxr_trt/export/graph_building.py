"""Building the scoring graph: one ONNX model from uint8 images to probabilities and class maps, for every backend.

It is built layer by layer from a state dict instead of being traced, so tensors have the names of their layers, and the
order in which views are cut, scored and merged is defined only here.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from cxr_trt.export.backbone import EARLY_CHANNELS, early, late, transfer
from cxr_trt.export.builder import OPSET, GraphBuilder
from cxr_trt.export.crop_sharing import EARLY_STRIDE, ImagePart, Piece, crop_parts, pieces_of_views, worth_sharing
from cxr_trt.export.pooling import POOLING_DOMAIN, POOLING_DOMAIN_VERSION, POOLING_OPERATOR, max_min_pool_function
from cxr_trt.export.rewrites import NO_REWRITES, Rewrites, average_maps, fold_norms
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import Specification
from cxr_trt.views import NETWORK_STRIDE


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
        A model with input `images` uint8 [N, 1, size, size], output `probabilities` float32 [N, 14] and, if requested,
        output `class_maps` float32 [N, 14, h, w] over `spec.class_map_region`.
    """
    if rewrites.average_maps:
        weights, settings = average_maps(weights, settings)
    if rewrites.fold_norms:
        weights = fold_norms(weights)
    graph, findings = GraphBuilder(weights), len(spec.findings)
    features = late(graph, _early_maps(graph, spec, rewrites), settings, rewrites)
    maps = transfer(graph, features, settings, spec)
    attributes: dict[str, Any] = {"k_max": spec.k_max, "k_min": spec.k_min, "alpha": spec.alpha}
    windows = spec.windows if len(spec.windows) > 1 else ()
    if windows:
        attributes["windows"] = list(chain(*windows))
    scores = graph.node(POOLING_OPERATOR, [maps], "pool", domain=POOLING_DOMAIN, **attributes)
    scaled = _at_operating_points(graph, graph.node("Sigmoid", [scores], "sigmoid"), spec)
    pooled = len(spec.view_list()) * len(spec.windows)
    per_view = graph.reshape(scaled, "per_view", [-1, pooled, findings])
    graph.reduce_mean(per_view, "probabilities", [1])
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", findings])]
    if class_maps:
        side = spec.class_map_region[1] // spec.class_map_cell
        _merge(graph, maps, spec, side)
        outputs.append(helper.make_tensor_value_info("class_maps", TensorProto.FLOAT, ["N", findings, side, side]))
    return graph.model(
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, spec.image_size, spec.image_size])],
        outputs,
        [max_min_pool_function(OPSET, len(windows))],
        {"": OPSET, POOLING_DOMAIN: POOLING_DOMAIN_VERSION},
        metadata,
    )


def _normalised(graph: GraphBuilder, pixels: str, spec: Specification, name: str) -> str:
    """Grey values [B, 1, h, w] from 0 to 255, to the network's normalised channels."""
    std = np.asarray(spec.std).reshape(1, -1, 1, 1)
    scale = graph.constant("normalise.scale", 1 / (255 * std), np.float32)
    shift = graph.constant("normalise.shift", -np.asarray(spec.mean).reshape(std.shape) / std, np.float32)
    return graph.node("Add", [graph.node("Mul", [pixels, scale], f"{name}.scaled"), shift], f"{name}.normalised")


def _parts(graph: GraphBuilder, grey: str, parts: Sequence[ImagePart], spec: Specification, name: str) -> str:
    """Cut equally large parts from the images [N, 1, size, size] and normalise them: [N * parts, channels, h, w].

    All parts of an image are adjacent. For a mirrored part, y and x count from the upper left of the mirror image.
    """
    cuts = []
    for i, part in enumerate(parts):
        start = spec.image_size - 1 - part.x if part.mirrored else part.x
        end = start - part.width if part.mirrored else start + part.width
        cuts.append(graph.slice(grey, f"{name}{i}", [2, 3], [part.y, start], [part.y + part.height, end]))
    stacked = graph.concat(cuts, f"{name}.stacked", 1)
    pixels = graph.reshape(stacked, f"{name}.parts", [-1, 1, parts[0].height, parts[0].width])
    return _normalised(graph, pixels, spec, name)


def _early_maps(graph: GraphBuilder, spec: Specification, rewrites: Rewrites) -> str:
    """The maps before the first gate: [N * views, 128, cells, cells], where all views of an image are adjacent."""
    grey = graph.node("Cast", ["images"], "grey", to=TensorProto.FLOAT)
    geometry = spec.view_list(), spec.image_size, spec.view_size
    if not rewrites.share_crops or not worth_sharing(*geometry):
        return early(graph, _parts(graph, grey, crop_parts(*geometry), spec, "view"), rewrites)
    sources = pieces_of_views(*geometry)
    maps_of_parts: dict[ImagePart, tuple[str, int]] = {}  # tensor [N, parts, 128, h, w], and index of the part in it
    by_size: dict[tuple[int, int], list[ImagePart]] = {}
    for piece in (piece for lines in sources for line in lines for piece in line):
        same = by_size.setdefault((piece.source.height, piece.source.width), [])
        if piece.source not in same:
            same.append(piece.source)
    for (height, width), parts in by_size.items():
        name = f"part{height}x{width}"
        pixels = _parts(graph, grey, parts, spec, name)
        with graph.scope(name):
            maps = early(graph, pixels, rewrites)
        shape = [-1, len(parts), EARLY_CHANNELS, height // EARLY_STRIDE, width // EARLY_STRIDE]
        by_image = graph.reshape(maps, f"{name}.by_image", shape)
        maps_of_parts |= {part: (by_image, i) for i, part in enumerate(parts)}
    joined = [_join(graph, lines, maps_of_parts, f"view{i}") for i, lines in enumerate(sources)]
    cells = spec.view_size // EARLY_STRIDE
    return graph.reshape(graph.concat(joined, "views", 1), "early", [-1, EARLY_CHANNELS, cells, cells])


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


def _at_operating_points(graph: GraphBuilder, p: str, spec: Specification) -> str:
    """Probabilities [N * views, windows, 14], scaled so that operating points become 0.5; without any, unchanged."""
    if not spec.operating_points:
        return p
    points = np.asarray(spec.operating_points)
    point = graph.constant("operating.points", points, np.float32)
    one = graph.constant("operating.one", 1, np.float32)
    below = graph.node("Mul", [p, graph.constant("operating.below", 0.5 / points, np.float32)], "operating.low")
    rest = graph.node("Sub", [one, p], "operating.rest")
    above = graph.node("Mul", [rest, graph.constant("operating.above", 0.5 / (1 - points), np.float32)], "operating.up")
    high = graph.node("Sub", [one, above], "operating.high")
    return graph.node("Where", [graph.node("Less", [p, point], "operating.is_low"), below, high], "operating")


def _merge(graph: GraphBuilder, maps: str, spec: Specification, side: int) -> None:
    """Add the output `class_maps`: the class maps of all views, mirrored back and averaged where they overlap."""
    findings, cells, views = len(spec.findings), spec.view_size // NETWORK_STRIDE, len(spec.view_list())
    by_view = graph.reshape(maps, "maps.by_view", [-1, views, findings, cells * cells])
    by_finding = graph.node("Transpose", [by_view], "maps.by_finding", perm=[0, 2, 1, 3])
    rows = graph.reshape(by_finding, "maps.rows", [-1, findings, views * cells * cells])
    matrix = graph.constant("maps.merge", _merge_matrix(spec), np.float32)
    merged = graph.node("MatMul", [rows, matrix], "maps.merged")
    graph.reshape(merged, "class_maps", [-1, findings, side, side])


def _merge_matrix(spec: Specification) -> npt.NDArray[np.float64]:
    """A matrix [views * h * w, H * W] whose column j averages the views' cells that lie on cell j of the merged map."""
    start, side = spec.class_map_region
    cell, cells, views = spec.class_map_cell, spec.view_size // NETWORK_STRIDE, spec.view_list()
    parts = NETWORK_STRIDE // cell  # cells of the merged map along the side of a view's cell
    matrix = np.zeros((len(views), cells, cells, side // cell, side // cell))
    y, x = np.mgrid[: cells * parts, : cells * parts]
    for i, view in enumerate(views):
        column = cells * parts - 1 - x if view.mirrored else x
        matrix[i, y // parts, x // parts, (view.y - start) // cell + y, (view.x - start) // cell + column] = 1
    matrix /= matrix.sum((0, 1, 2))
    return matrix.reshape(-1, (side // cell) ** 2)
