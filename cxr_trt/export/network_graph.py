"""A network as an ONNX graph of its own, and the scoring graph around it.

This is the form of every network that is not of the DenseNet family, which `cxr_trt.export.graph_building` builds layer
by layer: whatever its architecture, it gets crops and gives outputs, and class maps if it has them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from cxr_trt.export.builder import GraphBuilder
from cxr_trt.export.crop_sharing import crop_parts
from cxr_trt.export.framing import (
    NORMALISED_CROPS,
    VIEW,
    add_class_maps,
    add_probabilities,
    cut_parts,
    graph_inputs,
    graph_outputs,
    grey_pixels,
    reported_columns,
)
from cxr_trt.spec import Specification

PREFIX = "network."  # of the names of the network's nodes and of all tensors inside it
FLOAT32_PART = "float32"  # in the names of nodes that are float32 in engines of every precision
CROPS, OUTPUTS, MAPS = "crops", "outputs", "maps"  # the tensors through which it is connected
QUANTIZED_OPERATORS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger")


@dataclass(frozen=True, eq=False)
class NetworkGraph:
    """A network from normalised crops to its outputs.

    nodes, weights: they take the tensor `crops`, float32 [N, channels, h, w], and give `outputs`, float32 [N, K],
        and if the network has them `maps`, float32 [N, K, rows, columns]. All other names begin with PREFIX.
    opsets: the versions of the operators, by domain.
    has_maps: whether there are class maps.
    one_by_one: whether N must be 1, because the network was written for a batch of one.
    """

    nodes: tuple[onnx.NodeProto, ...]
    weights: tuple[onnx.TensorProto, ...]
    opsets: Mapping[str, int]
    has_maps: bool
    one_by_one: bool = False

    @property
    def is_quantized(self) -> bool:
        return any(node.op_type in QUANTIZED_OPERATORS for node in self.nodes)

    @property
    def is_float16(self) -> bool:
        return any(tensor.data_type == TensorProto.FLOAT16 for tensor in self.weights)


def build_network_graph(
    network: NetworkGraph, spec: Specification, metadata: Mapping[str, str], *, class_maps: bool
) -> onnx.ModelProto:
    """The scoring graph of a network.

    Args:
        network: the network.
        spec: views, normalisation and outputs; without `pooling`.
        metadata: written into the model unchanged.
        class_maps: whether the graph has the output `class_maps`; only for a network that has maps.

    Returns:
        A model with input `images` uint8 [N, 1, height, width], output `probabilities` float32 [N, findings] and, if
        requested, output `class_maps` float32 [N, findings, h, w] over `spec.class_map_region`. N is 1 if the network
        was written for a batch of one.
    """
    graph = GraphBuilder({})
    parts = crop_parts(spec.view_list(), spec.image_size, spec.view_size)
    normalised = cut_parts(graph, grey_pixels(graph), parts, spec, VIEW)
    if network.one_by_one:
        results = []
        for i in range(len(parts)):
            crop = graph.slice(normalised, f"view{i}.crop", [0], [i], [i + 1])
            results.append(_place(graph, network, crop, f"view{i}."))
        outputs, maps = (
            graph.concat([result[name] for result in results if name in result], f"views.{name}", 0)
            if name in results[0]
            else ""
            for name in (OUTPUTS, MAPS)
        )
    else:
        placed = _place(graph, network, normalised, "")
        outputs, maps = placed[OUTPUTS], placed.get(MAPS, "")
    add_probabilities(graph, outputs, spec)
    if class_maps:
        if columns := reported_columns(spec):
            maps = graph.node(
                "Gather", [maps, graph.constant("reported.maps", columns, "int64")], "maps.reported", axis=1
            )
        add_class_maps(graph, maps, spec)
    graph.initializers |= {tensor.name: tensor for tensor in network.weights}
    batch = 1 if network.one_by_one else "N"
    return graph.model(
        graph_inputs(spec, batch), graph_outputs(spec, batch, class_maps=class_maps), [], network.opsets, metadata
    )


def _place(graph: GraphBuilder, network: NetworkGraph, crops: str, scope: str) -> dict[str, str]:
    """Append the network's nodes, with `scope` before all names but those of weights.

    Returns:
        The names of the tensors that are its outputs and, if it has them, its maps.
    """
    weights = {tensor.name for tensor in network.weights}
    renamed = {CROPS: crops}
    for node in network.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = scope + node.name
        if scope:
            renamed |= {name: scope + name for name in node.output if name}
            _rename(copy, renamed, weights)
        else:
            copy.input[:] = [renamed.get(name, name) for name in node.input]
        graph.nodes.append(copy)
    names = (OUTPUTS, MAPS) if network.has_maps else (OUTPUTS,)
    return {name: scope + name for name in names}


def _rename(node: onnx.NodeProto, names: Mapping[str, str], kept: set[str]) -> None:
    """Rename the tensors of a node, and those that the graphs inside it take from outside."""
    node.input[:] = [name if name in kept else names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            _rename(inner, names, kept)


def find_network_graph(model: onnx.ModelProto) -> NetworkGraph | None:
    """The network of a scoring graph that `build_network_graph` made; None if there is no such network in it."""
    first = [node for node in model.graph.node if node.name.startswith((PREFIX, f"view0.{PREFIX}"))]
    if not first:
        return None
    one_by_one = first[0].name.startswith("view0.")
    scope = "view0." if one_by_one else ""
    crops = "view0.crop" if one_by_one else NORMALISED_CROPS
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    produced = {name: name.removeprefix(scope) for node in first for name in node.output}
    nodes = []
    used: set[str] = set()
    for node in first:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = node.name.removeprefix(scope)
        _rename(copy, {**produced, crops: CROPS}, set(weights))
        nodes.append(copy)
        used |= tensors_into(copy)
    has_maps = any(f"{scope}{MAPS}" in node.output for node in first)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    kept = tuple(weights[name] for name in weights if name in used)
    return NetworkGraph(tuple(nodes), kept, opsets, has_maps, one_by_one)


def network_model(network: NetworkGraph, shape: Sequence[int]) -> onnx.ModelProto:
    """A model of the network alone, with input `crops` [N, *shape] and its own outputs, to be run or measured."""
    outputs = [helper.make_tensor_value_info(OUTPUTS, TensorProto.FLOAT, None)]
    if network.has_maps:
        outputs.append(helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, None))
    crops = helper.make_tensor_value_info(CROPS, TensorProto.FLOAT, [1 if network.one_by_one else "N", *shape])
    graph = helper.make_graph(list(network.nodes), "network", [crops], outputs, list(network.weights))
    opsets = [helper.make_opsetid(domain, version) for domain, version in network.opsets.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def needed_nodes(nodes: Sequence[onnx.NodeProto], ends: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that these tensors depend on, in order."""
    wanted, kept = set(ends), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= tensors_into(node)
            kept.append(node)
    return kept[::-1]


def tensors_into(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node or the graphs inside it use."""
    names = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            names |= tensors_into(inner)
    return names
