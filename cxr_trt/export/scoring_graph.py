"""The scoring graph: from uint8 images to probabilities and class maps in one ONNX model, whatever runs it.

It is built layer by layer from a state dict, not traced: tensors carry the layers' names, and the order in which
the views are cut, scored and merged is written here once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from cxr_trt.export.builder import OPSET, GraphBuilder
from cxr_trt.export.pooling import DOMAIN, DOMAIN_VERSION, NAME, max_min_pool_function
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import STRIDE, Specification

BLOCKS = (6, 12, 24, 16)  # layers of DenseNet-121's dense blocks
EPSILON = 1e-5  # of every batch norm


def scoring_graph(
    weights: Mapping[str, npt.NDArray[Any]],
    settings: ModelSettings,
    spec: Specification,
    metadata: Mapping[str, str],
    *,
    class_maps: bool,
) -> onnx.ModelProto:
    """Build the scoring graph.

    Args:
        weights: the state dict of `cxr_trt.model.network.Network`, as NumPy arrays.
        settings: which network it is.
        spec: views, normalisation and pooling.
        metadata: written into the model as they are.
        class_maps: whether the graph has the second output.

    Returns:
        A model with input `images` uint8 [N, 1, size, size], outputs `probabilities` float32 [N, 14] and, if asked
        for, `class_maps` float32 [N, 14, h, w] over `spec.class_map_region`.
    """
    graph, findings = GraphBuilder(weights), len(spec.findings)
    crops = _crops(graph, spec)
    maps = _transfer(graph, _backbone(graph, crops, settings), settings, spec)
    attributes = {"k_max": spec.k_max, "k_min": spec.k_min, "alpha": spec.alpha}
    scores = graph.node(NAME, [maps], "pool", domain=DOMAIN, **attributes)
    views = len(spec.view_list())
    scaled = _at_operating_points(graph, graph.node("Sigmoid", [scores], "sigmoid"), spec)
    per_view = graph.reshape(scaled, "per_view", [-1, views, findings])
    graph.reduce_mean(per_view, "probabilities", [1])
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", findings])]
    if class_maps:
        side = spec.class_map_region[1] // spec.class_map_cell
        _merge(graph, maps, spec, side)
        outputs.append(helper.make_tensor_value_info("class_maps", TensorProto.FLOAT, ["N", findings, side, side]))
    return graph.model(
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 1, spec.image_size, spec.image_size])],
        outputs,
        [max_min_pool_function(OPSET)],
        {"": OPSET, DOMAIN: DOMAIN_VERSION},
        metadata,
    )


def _crops(graph: GraphBuilder, spec: Specification) -> str:
    """Images [N, 1, size, size] to normalised crops [N * views, channels, crop, crop], an image's views together."""
    grey, size = graph.node("Cast", ["images"], "grey", to=TensorProto.FLOAT), spec.crop_size
    cuts = []
    for i, view in enumerate(spec.view_list()):
        columns = (view.x + size - 1, view.x - 1) if view.mirrored else (view.x, view.x + size)
        cuts.append(graph.slice(grey, f"view{i}", [2, 3], [view.y, columns[0]], [view.y + size, columns[1]]))
    stacked = graph.node("Concat", cuts, "views", axis=1)
    crops = graph.reshape(stacked, "crops", [-1, 1, size, size])
    std = np.asarray(spec.std).reshape(1, -1, 1, 1)
    scale = graph.constant("normalise.scale", 1 / (255 * std), np.float32)
    shift = graph.constant("normalise.shift", -np.asarray(spec.mean).reshape(std.shape) / std, np.float32)
    return graph.node("Add", [graph.node("Mul", [crops, scale], "scaled"), shift], "normalised")


def _backbone(graph: GraphBuilder, x: str, settings: ModelSettings) -> str:
    """Crops to features [N * views, 1024, crop / 32, crop / 32] (paper, sec. 3.1)."""

    def norm_relu(x: str, layer: str) -> str:
        return graph.node("Relu", [graph.batch_norm(x, layer, EPSILON)], f"{layer}.relu")

    x = norm_relu(graph.conv(x, "features.conv0", stride=2, padding=3), "features.norm0")
    x = graph.node("MaxPool", [x], "features.pool0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for block, layers in enumerate(BLOCKS, start=1):
        features = [x]
        for i in range(1, layers + 1):
            layer = f"features.denseblock{block}.denselayer{i}"
            if len(features) > 1:
                x = graph.node("Concat", features, f"{layer}.concat", axis=1)
            x = graph.conv(norm_relu(x, f"{layer}.norm1"), f"{layer}.conv1")
            features.append(graph.conv(norm_relu(x, f"{layer}.norm2"), f"{layer}.conv2", padding=1))
        x = graph.node("Concat", features, f"features.denseblock{block}", axis=1)
        if block < len(BLOCKS):
            layer = f"features.transition{block}"
            x = graph.conv(norm_relu(x, f"{layer}.norm"), f"{layer}.conv")
            if settings.squeeze_excitation:
                x = _squeeze_excitation(graph, x, f"{layer}.se")
            x = graph.node("AveragePool", [x], f"{layer}.pool", kernel_shape=[2, 2], strides=[2, 2])
    return norm_relu(x, "features.norm5")


def _squeeze_excitation(graph: GraphBuilder, x: str, layer: str) -> str:
    """The gate of a transition (paper, eqs. 1-3)."""
    means = graph.reduce_mean(x, f"{layer}.means", [2, 3])
    squeezed = graph.node("Relu", [graph.linear(means, f"{layer}.squeeze")], f"{layer}.relu")
    gates = graph.node("Sigmoid", [graph.linear(squeezed, f"{layer}.excite")], f"{layer}.sigmoid")
    return graph.node("Mul", [x, graph.reshape(gates, f"{layer}.gates", [0, -1, 1, 1])], layer)


def _transfer(graph: GraphBuilder, features: str, settings: ModelSettings, spec: Specification) -> str:
    """Features to class maps [N * views, 14, cells, cells]: M maps a finding, averaged (paper, sec. 3.3)."""
    maps = graph.conv(features, "transfer.conv")
    if settings.maps_per_finding == 1:
        return maps
    cells = spec.crop_size // STRIDE
    by_finding = graph.reshape(
        maps, "transfer.by_finding", [-1, len(spec.findings), settings.maps_per_finding, cells, cells]
    )
    return graph.reduce_mean(by_finding, "transfer", [2])


def _at_operating_points(graph: GraphBuilder, p: str, spec: Specification) -> str:
    """Probabilities [N * views, 1, 14], scaled below and above the operating points; as they are without any."""
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
    """All views' class maps, mirrored ones turned back, averaged where they overlap: the output `class_maps`."""
    findings, cells, views = len(spec.findings), spec.crop_size // STRIDE, len(spec.view_list())
    by_view = graph.reshape(maps, "maps.by_view", [-1, views, findings, cells * cells])
    by_finding = graph.node("Transpose", [by_view], "maps.by_finding", perm=[0, 2, 1, 3])
    rows = graph.reshape(by_finding, "maps.rows", [-1, findings, views * cells * cells])
    matrix = graph.constant("maps.merge", _merge_matrix(spec), np.float32)
    merged = graph.node("MatMul", [rows, matrix], "maps.merged")
    graph.reshape(merged, "class_maps", [-1, findings, side, side])


def _merge_matrix(spec: Specification) -> npt.NDArray[np.float64]:
    """[views * h * w, H * W]: column j averages the views' cells that lie on cell j of the merged map."""
    start, side = spec.class_map_region
    cell, cells, views = spec.class_map_cell, spec.crop_size // STRIDE, spec.view_list()
    parts = STRIDE // cell  # of the merged map to a side of a view's cell
    matrix = np.zeros((len(views), cells, cells, side // cell, side // cell))
    y, x = np.mgrid[: cells * parts, : cells * parts]
    for i, view in enumerate(views):
        column = cells * parts - 1 - x if view.mirrored else x
        matrix[i, y // parts, x // parts, (view.y - start) // cell + y, (view.x - start) // cell + column] = 1
    matrix /= matrix.sum((0, 1, 2))
    return matrix.reshape(-1, (side // cell) ** 2)
