"""Reading a network from an ONNX file of any origin, as a `NetworkGraph`.

The file may have a fixed or a free batch size, float32, float16 or quantized weights, weights in files beside it, and
outputs besides the scores. What the network computes is not changed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.errors import GraphError
from cxr_trt.export.activation_maps import add_activation_maps
from cxr_trt.export.builder import OPSET
from cxr_trt.export.external_data import load_weights_beside
from cxr_trt.export.network_graph import (
    CROPS,
    MAPS,
    OUTPUTS,
    PREFIX,
    NetworkGraph,
    needed_nodes,
    network_model,
    tensors_into,
)
from cxr_trt.export.scoring_graph import MAX_BYTES
from cxr_trt.export.session import first_line, open_session, run_model
from cxr_trt.views import Size

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
CONSTANT_TYPES = {
    "value": None,  # a tensor, which has its own type
    **dict.fromkeys(("value_float", "value_floats"), np.float32),
    **dict.fromkeys(("value_int", "value_ints"), np.int64),
}
"""Types of the numbers in a Constant node, by its attribute."""
TOLERANCE = 1e-5  # relative to the largest output


@dataclass(frozen=True)
class Ends:
    """Where a network begins and ends.

    crops, outputs: names of tensors. batch: the fixed batch size, or 0 if it is free. channels, size: of the crops.
    dtype: float32 or float16, of the crops.
    """

    crops: str
    outputs: str
    batch: int
    channels: int
    size: Size
    dtype: npt.DTypeLike


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network from an ONNX file: as it is in the file, to run as a reference, and as a `NetworkGraph`.

    map_cells: the size of its class maps; None if it has none.
    """

    original: onnx.ModelProto
    ends: Ends
    graph: NetworkGraph
    map_cells: Size | None

    def run(self, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The outputs [N, K] of the original file for crops [N, channels, h, w], which ONNX Runtime computes."""
        return run_original(self.original, self.ends, crops)


def load_onnx_network(path: Path, outputs: int, scores: str | None = None) -> OnnxNetwork:
    """Read a network.

    Args:
        path: the ONNX file.
        outputs: how many outputs the network must have.
        scores: the name of the output that holds them; None takes the first one of the right shape.

    Raises:
        GraphError: it is no ONNX file, too large, keeps weights outside its folder, has several image inputs or no
            fixed image size, other outputs, or operators that ONNX Runtime does not know.
    """
    return to_network(_load(path), str(path), outputs, scores)


def to_network(
    model: onnx.ModelProto, name: str, outputs: int, scores: str | None = None, maps: str | None = None
) -> OnnxNetwork:
    """As `load_onnx_network`, from a model in memory.

    Args:
        model: the model.
        name: stands in messages.
        outputs: how many outputs the network must have.
        scores: the name of the output that holds them.
        maps: the name of the output with the network's own class maps, if it has any.
    """
    ends = _find_ends(model, name, outputs, scores)
    inlined = onnx.inliner.inline_local_functions(model)
    try:
        raised = _with_opset(inlined)
    except Exception as error:  # the converter raises whatever its adapters raise
        raise GraphError(
            f"{name}: its operators are of a version that cannot be brought to opset {OPSET} ({first_line(error)}); "
            f"export it with opset {OPSET}"
        ) from error
    graph = _connected(raised, ends, maps)
    if ends.batch:
        graph = _with_free_batch(graph, model, ends, name)
    shape = (ends.channels, *ends.size)
    if maps is not None:
        (values,) = run_model(network_model(graph, shape), name, [MAPS], {CROPS: np.zeros((1, *shape), np.float32)})
        return OnnxNetwork(model, ends, graph, Size(*values.shape[2:]))
    with_maps = add_activation_maps(graph, shape)
    graph, cells = with_maps or (graph, None)
    return OnnxNetwork(model, ends, graph, cells)


def run_original(model: onnx.ModelProto, ends: Ends, crops: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The outputs [N, K] of a model with these ends, which gets crops in batches of its own size, or one by one."""
    session = open_session(model, "the network")
    batch = ends.batch or 1
    found = []
    for start in range(0, len(crops), batch):
        part = crops[start : start + batch]
        filled = np.resize(part, (batch, *part.shape[1:])).astype(ends.dtype)
        found.append(session.run([ends.outputs], {ends.crops: filled})[0][: len(part)])
    return np.concatenate(found).astype(np.float32)


def _load(path: Path) -> onnx.ModelProto:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise GraphError(f"{path}: has more than 2 GiB; export it with less")
        model = onnx.load(path, format="protobuf", load_external_data=False)
        load_weights_beside(model, path)
        if model.ByteSize() > MAX_BYTES:
            raise GraphError(f"{path}: has more than 2 GiB with its weights, which no scoring graph can have")
        onnx.checker.check_model(model)
    except OSError as error:
        raise GraphError(f"{path}: cannot be read ({error.strerror or first_line(error)}); copy it again") from error
    except (DecodeError, onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise GraphError(f"{path}: not a valid ONNX model ({first_line(error)}); export it again") from error
    return model


def _find_ends(model: onnx.ModelProto, name: str, outputs: int, scores: str | None) -> Ends:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise GraphError(f"{name}: must have one input, the image, but has {len(inputs)} ({names}); export it with one")
    image = inputs[0].type.tensor_type
    dims = [dim.dim_value for dim in image.shape.dim]
    if image.elem_type not in FLOATS or len(dims) != 4:
        raise GraphError(
            f"{name}: its input {inputs[0].name} is not a float image [N, channels, height, width]; export it without "
            "its preprocessing"
        )
    batch, channels, *size = dims
    if not all((channels, *size)):
        shown = " x ".join(dim.dim_param or str(dim.dim_value or "?") for dim in image.shape.dim)
        raise GraphError(f"{name}: its input is {shown}, without a fixed image size; export it for one size")
    ends = Ends(inputs[0].name, "", batch, channels, Size(*size), FLOATS[image.elem_type])
    return replace(ends, outputs=_find_outputs(model, ends, name, outputs, scores))


def _find_outputs(model: onnx.ModelProto, ends: Ends, name: str, outputs: int, scores: str | None) -> str:
    names = [output.name for output in model.graph.output]
    if scores is not None and scores not in names:
        raise GraphError(f"{name}: has no output {scores!r}, but {', '.join(names)}")
    crops = np.zeros((ends.batch or 1, ends.channels, *ends.size), ends.dtype)
    values = dict(zip(names, run_model(model, name, names, {ends.crops: crops}), strict=True))
    fitting = [n for n in ([scores] if scores else names) if np.shape(values[n]) == (len(crops), outputs)]
    if not fitting:
        shapes = ", ".join(f"{n} {list(np.shape(values[n]))}" for n in names)
        raise GraphError(
            f"{name}: no output has {outputs} scores per image, one per finding of the card; its outputs are {shapes}"
        )
    return fitting[0]


def _with_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), OPSET)
    return model if version >= OPSET else onnx.version_converter.convert_version(model, OPSET)


def _connected(model: onnx.ModelProto, ends: Ends, maps: str | None) -> NetworkGraph:
    """The nodes on the way from the crops to the scores, with unique names, between float32 tensors."""
    copy = _with_constants_as_weights(model)
    for i, node in enumerate(copy.graph.node):
        node.name = f"{i}.{node.op_type}" if not node.name else f"{i}.{node.name}"
    prefixed = onnx.compose.add_prefix(copy, PREFIX)
    graph = prefixed.graph
    crops, outputs = PREFIX + ends.crops, PREFIX + ends.outputs
    first = helper.make_node(
        "Cast", [CROPS], [crops], name=f"{PREFIX}crops", to=helper.np_dtype_to_tensor_dtype(np.dtype(ends.dtype))
    )
    last = helper.make_node("Cast", [outputs], [OUTPUTS], name=f"{PREFIX}outputs", to=TensorProto.FLOAT)
    if ends.dtype == np.float32:
        first, last = (helper.make_node("Identity", node.input, node.output, name=node.name) for node in (first, last))
    lasts = [last]
    if maps is not None:
        lasts.append(helper.make_node("Identity", [PREFIX + maps], [MAPS], name=f"{PREFIX}{MAPS}"))
    nodes = needed_nodes([first, *graph.node, *lasts], {OUTPUTS, MAPS})
    used = {name for node in nodes for name in tensors_into(node)}
    weights = tuple(tensor for tensor in graph.initializer if tensor.name in used)
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in prefixed.opset_import}
    return NetworkGraph(tuple(nodes), weights, {"": OPSET, **opsets}, has_maps=maps is not None)


def _with_constants_as_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the numbers of Constant nodes are weights like all others."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = []
    for node in copy.graph.node:
        attribute = node.attribute[0] if node.op_type == "Constant" else None
        if attribute is None or attribute.name not in CONSTANT_TYPES:
            kept.append(node)
            continue
        value = helper.get_attribute_value(attribute)
        dtype = CONSTANT_TYPES[attribute.name]
        values = numpy_helper.to_array(value) if dtype is None else np.array(value, dtype)
        copy.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _with_free_batch(network: NetworkGraph, original: onnx.ModelProto, ends: Ends, name: str) -> NetworkGraph:
    """The network for any number of crops, if that only takes other shapes in Reshape nodes; else for one crop.

    Both are compared with the original file.
    """
    crops = np.random.default_rng(0).normal(size=(3, ends.channels, *ends.size)).astype(np.float32)
    expected = run_original(original, ends, crops)
    freed = _reshaping_any_batch(network, ends.batch)
    shape = (ends.channels, *ends.size)
    if _agrees(network_model(freed, shape), crops, expected):
        return freed
    alone = replace(network, one_by_one=True)
    if ends.batch == 1 and all(
        _agrees(network_model(alone, shape), crops[i : i + 1], expected[i : i + 1]) for i in range(len(crops))
    ):
        return alone
    raise GraphError(
        f"{name}: is written for a batch of exactly {ends.batch}; export it with a free batch size, or for a batch of 1"
    )


def _agrees(model: onnx.ModelProto, crops: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> bool:
    try:
        (found,) = run_model(model, "the network", [OUTPUTS], {CROPS: crops})
    except GraphError:  # shapes that do not fit
        return False
    scale = max(1.0, float(np.abs(expected).max()))
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= TOLERANCE * scale)


def _reshaping_any_batch(network: NetworkGraph, batch: int) -> NetworkGraph:
    shapes = {node.input[1] for node in network.nodes if node.op_type == "Reshape"}

    def freed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(values) and values[0] == batch:
            values = values.copy()
            values[0] = 0 if -1 in values else -1
        return values

    weights = [
        numpy_helper.from_array(freed(numpy_helper.to_array(tensor)), tensor.name) if tensor.name in shapes else tensor
        for tensor in network.weights
    ]
    return replace(network, weights=tuple(weights))
