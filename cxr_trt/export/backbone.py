"""The network as ONNX nodes, layer by layer, in the order that the rewrites need (paper, sec. 3)."""

from cxr_trt.export.builder import GraphBuilder
from cxr_trt.export.rewrites import CHUNK_LAYERS, JOINED, NEW, NORM_EPSILON, Rewrites, affine_norm
from cxr_trt.model.settings import ModelSettings
from cxr_trt.spec import Specification

DENSE_BLOCK_LAYERS = (6, 12, 24, 16)  # layers in each of DenseNet-121's dense blocks
EARLY_CHANNELS = 128  # channels of the maps before the first gate


def early(graph: GraphBuilder, x: str, rewrites: Rewrites) -> str:
    """The layers from normalised image parts to the maps before the first gate, which are pooled with `pool_first`."""
    x = _norm_relu(graph, graph.conv(x, "features.conv0", stride=2, padding=3), "features.norm0", rewrites)
    x = graph.node("MaxPool", [x], "features.pool0", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return _transition(graph, _dense_block(graph, x, 1, rewrites), 1, rewrites)


def late(graph: GraphBuilder, x: str, settings: ModelSettings, rewrites: Rewrites) -> str:
    """The layers from the first gate to features [N * views, 1024, view / 32, view / 32] (paper, sec. 3.1)."""
    for block in range(2, len(DENSE_BLOCK_LAYERS) + 1):
        if settings.squeeze_excitation:
            x = _squeeze_excitation(graph, x, f"features.transition{block - 1}.se")
        if not rewrites.pool_first:
            x = _halved(graph, x, f"features.transition{block - 1}.pool")
        x = _dense_block(graph, x, block, rewrites)
        if block < len(DENSE_BLOCK_LAYERS):
            x = _transition(graph, x, block, rewrites)
    return _norm_relu(graph, x, "features.norm5", rewrites)


def _dense_block(graph: GraphBuilder, x: str, block: int, rewrites: Rewrites) -> str:
    if rewrites.chunk_concats:
        return _chunked_dense_block(graph, x, block, rewrites)
    features = [x]
    for layer in _dense_layers(block):
        x = graph.concat(features, f"{layer}.concat", 1)
        x = _first_conv(graph, x, layer, rewrites)
        features.append(_second_conv(graph, x, layer, rewrites))
    return graph.concat(features, f"features.denseblock{block}", 1)


def _chunked_dense_block(graph: GraphBuilder, x: str, block: int, rewrites: Rewrites) -> str:
    """The same, with features joined only after every CHUNK_LAYERS layers; see `split_first_convs`."""
    joined, new = x, list[str]()
    for layer in _dense_layers(block):
        if len(new) == CHUNK_LAYERS:
            joined, new = graph.concat([joined, *new], f"{layer}.concat", 1), []
        if new:
            newer = graph.concat(new, f"{layer}.{NEW}", 1)
            parts = [
                _first_conv(graph, features, f"{layer}.{part}", rewrites)
                for part, features in ((JOINED, joined), (NEW, newer))
            ]
            x = graph.node("Add", parts, f"{layer}.conv1")
        else:
            x = _first_conv(graph, joined, layer, rewrites)
        new.append(_second_conv(graph, x, layer, rewrites))
    return graph.concat([joined, *new], f"features.denseblock{block}", 1)


def _dense_layers(block: int) -> list[str]:
    return [f"features.denseblock{block}.denselayer{i + 1}" for i in range(DENSE_BLOCK_LAYERS[block - 1])]


def _first_conv(graph: GraphBuilder, x: str, layer: str, rewrites: Rewrites) -> str:
    return graph.conv(_norm_relu(graph, x, f"{layer}.norm1", rewrites), f"{layer}.conv1")


def _second_conv(graph: GraphBuilder, x: str, layer: str, rewrites: Rewrites) -> str:
    return graph.conv(_norm_relu(graph, x, f"{layer}.norm2", rewrites), f"{layer}.conv2", padding=1)


def _transition(graph: GraphBuilder, x: str, number: int, rewrites: Rewrites) -> str:
    """A transition as far as its gate: norm, ReLU, the pooling if it comes first, and the convolution."""
    layer = f"features.transition{number}"
    x = _norm_relu(graph, x, f"{layer}.norm", rewrites)
    if rewrites.pool_first:
        x = _halved(graph, x, f"{layer}.pool")
    return graph.conv(x, f"{layer}.conv")


def _halved(graph: GraphBuilder, x: str, name: str) -> str:
    return graph.node("AveragePool", [x], name, kernel_shape=[2, 2], strides=[2, 2])


def _norm_relu(graph: GraphBuilder, x: str, layer: str, rewrites: Rewrites) -> str:
    if f"{layer}.weight" in graph.weights:  # otherwise it was folded into the convolution before it
        affine = affine_norm(graph.weights, layer) if rewrites.affine_norms else None
        x = graph.affine(x, layer, *affine) if affine else graph.batch_norm(x, layer, NORM_EPSILON)
    return graph.node("Relu", [x], f"{layer}.relu")


def _squeeze_excitation(graph: GraphBuilder, x: str, layer: str) -> str:
    """The gate of a transition (paper, eqs. 1-3)."""
    means = graph.reduce_mean(x, f"{layer}.means", [2, 3])
    squeezed = graph.node("Relu", [graph.linear(means, f"{layer}.squeeze")], f"{layer}.relu")
    gates = graph.node("Sigmoid", [graph.linear(squeezed, f"{layer}.excite")], f"{layer}.sigmoid")
    return graph.node("Mul", [x, graph.reshape(gates, f"{layer}.gates", [0, -1, 1, 1])], layer)


def transfer(graph: GraphBuilder, features: str, settings: ModelSettings, spec: Specification) -> str:
    """Features to class maps [N * views, findings, rows, columns]: the mean of M maps per finding (paper, sec. 3.3)."""
    maps = graph.conv(features, "transfer.conv")
    if settings.maps_per_finding == 1:
        return maps
    shape = [-1, len(spec.findings), settings.maps_per_finding, *spec.view_cells]
    by_finding = graph.reshape(maps, "transfer.by_finding", shape)
    return graph.reduce_mean(by_finding, "transfer", [2])
