"""What surrounds a network in every scoring graph: from images to its crops, and from its outputs to probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from cxr_trt.export.builder import GraphBuilder
from cxr_trt.export.crop_sharing import ImagePart
from cxr_trt.spec import Specification

NORMALISE_SCALE, NORMALISE_SHIFT = "normalise.scale", "normalise.shift"  # constants, one value per channel
VIEW = "view"  # a prefix
CROPS_TO_SCORE, NORMALISED_CROPS = f"{VIEW}.parts", f"{VIEW}.normalised"  # tensors [N * views, channels, h, w]


def grey_pixels(graph: GraphBuilder) -> str:
    """The images as float32 [N, 1, height, width], 0 to 255."""
    return graph.node("Cast", ["images"], "grey", to=TensorProto.FLOAT)


def cut_parts(graph: GraphBuilder, grey: str, parts: Sequence[ImagePart], spec: Specification, name: str) -> str:
    """Cut equally large parts from the images and normalise them: [N * parts, channels, h, w].

    All parts of an image are adjacent. For a mirrored part, y and x count from the upper left of the mirror image.
    """
    cuts = []
    for i, part in enumerate(parts):
        start = spec.image_size.width - 1 - part.x if part.mirrored else part.x
        end = start - part.width if part.mirrored else start + part.width
        cuts.append(graph.slice(grey, f"{name}{i}", [2, 3], [part.y, start], [part.y + part.height, end]))
    stacked = graph.concat(cuts, f"{name}.stacked", 1)
    pixels = graph.reshape(stacked, f"{name}.parts", [-1, 1, parts[0].height, parts[0].width])
    return _normalised(graph, pixels, spec, name)


def _normalised(graph: GraphBuilder, pixels: str, spec: Specification, name: str) -> str:
    """Grey values [B, 1, h, w] from 0 to 255, to the network's normalised channels."""
    mean, std = (np.asarray(values).reshape(1, -1, 1, 1) for values in (spec.mean, spec.std))
    black, white = spec.pixel_range
    scale = graph.constant(NORMALISE_SCALE, (white - black) / (255 * std), np.float32)
    shift = graph.constant(NORMALISE_SHIFT, (black - mean) / std, np.float32)
    return graph.node("Add", [graph.node("Mul", [pixels, scale], f"{name}.scaled"), shift], f"{name}.normalised")


def add_probabilities(graph: GraphBuilder, outputs: str, spec: Specification) -> None:
    """Add the output `probabilities`: what the network gives as probabilities, averaged over views and windows.

    Args:
        graph: the graph to add to.
        outputs: [N * views, K], or [N * views, windows, K] if class maps are pooled; K outputs of the network.
        spec: says what the outputs are and which are reported.
    """
    if spec.output == "logits":
        p = graph.node("Sigmoid", [outputs], "sigmoid")
    elif spec.output == "softmax-logits":
        p = graph.node("Softmax", [outputs], "softmax", axis=-1)
    else:
        p = outputs
    if reported := reported_columns(spec):
        p = graph.node("Gather", [p, graph.constant("reported.columns", reported, np.int64)], "reported", axis=-1)
    p = _at_operating_points(graph, p, spec)
    pooled = len(spec.view_list()) * (len(spec.windows) if spec.pooling else 1)
    per_view = graph.reshape(p, "per_view", [-1, pooled, len(spec.findings)])
    graph.reduce_mean(per_view, "probabilities", [1])


def reported_columns(spec: Specification) -> list[int]:
    """The indices of the findings among the network's outputs; empty if they are all of them in the same order."""
    if spec.network_outputs == spec.findings:
        return []
    return [spec.network_outputs.index(finding) for finding in spec.findings]


def _at_operating_points(graph: GraphBuilder, p: str, spec: Specification) -> str:
    """Probabilities [..., findings], scaled so that operating points become 0.5; without any, unchanged."""
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


def add_class_maps(graph: GraphBuilder, maps: str, spec: Specification) -> None:
    """Add the output `class_maps`: the maps of all views, mirrored back and averaged where they overlap.

    Args:
        graph: the graph to add to.
        maps: [N * views, findings, h, w].
        spec: says where the views are.
    """
    findings, cells, views = len(spec.findings), spec.view_cells, len(spec.view_list())
    count, merged_cells = cells.height * cells.width, spec.class_map_cells
    by_view = graph.reshape(maps, "maps.by_view", [-1, views, findings, count])
    by_finding = graph.node("Transpose", [by_view], "maps.by_finding", perm=[0, 2, 1, 3])
    rows = graph.reshape(by_finding, "maps.rows", [-1, findings, views * count])
    matrix = graph.constant("maps.merge", merge_matrix(spec), np.float32)
    merged = graph.node("MatMul", [rows, matrix], "maps.merged")
    graph.reshape(merged, "class_maps", [-1, findings, *merged_cells])


def merge_matrix(spec: Specification) -> npt.NDArray[np.float64]:
    """A matrix [views * h * w, H * W] whose column j averages the views' cells that lie on cell j of the merged map."""
    region, parts, cells, merged = spec.class_map_region, spec.class_map_parts, spec.view_cells, spec.class_map_cells
    views = spec.view_list()
    down, across = spec.view_size.height // cells.height, spec.view_size.width // cells.width
    matrix = np.zeros((len(views), *cells, *merged))
    y, x = np.mgrid[: cells.height * parts.height, : cells.width * parts.width]
    for i, view in enumerate(views):
        column = cells.width * parts.width - 1 - x if view.mirrored else x
        top = (view.y - region.y) * parts.height // down
        left = (view.x - region.x) * parts.width // across
        matrix[i, y // parts.height, x // parts.width, top + y, left + column] = 1
    matrix /= matrix.sum((0, 1, 2))
    return matrix.reshape(-1, merged.height * merged.width)


def graph_inputs(spec: Specification, batch: str | int = "N") -> list[onnx.ValueInfoProto]:
    """The input of a scoring graph, for any number of images or for `batch`."""
    return [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 1, *spec.image_size])]


def graph_outputs(spec: Specification, batch: str | int = "N", *, class_maps: bool) -> list[onnx.ValueInfoProto]:
    """The outputs of a scoring graph, for any number of images or for `batch`."""
    shapes: dict[str, list[Any]] = {"probabilities": [batch, len(spec.findings)]}
    if class_maps:
        shapes["class_maps"] = [batch, len(spec.findings), *spec.class_map_cells]
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
