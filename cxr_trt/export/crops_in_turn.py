"""An exact rewrite for CPUs: the network sees the crops of an X-ray one after the other, by ONNX's operator Scan.

The features that a dense block makes of ten crops do not fit into a processor's cache; those of one crop nearly do.
What is computed for each crop stays the same. Quantized graphs are left alone: OpenVINO 2026.4 gives wrong
probabilities where quantized layers are inside a Scan. So are graphs that become float16 (`cxr_trt.precision.plan`):
types are changed outside of such graphs alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cxr_trt.export.framing import CROPS_TO_SCORE, NORMALISED_CROPS
from cxr_trt.export.graph_building import EARLY_MAPS
from cxr_trt.export.network_graph import MAPS, OUTPUTS, QUANTIZED_OPERATORS, tensors_into
from cxr_trt.export.pooling import POOLING_OPERATOR

SCAN = "crops_in_turn"  # the node; also a prefix of what is new inside it
STARTS = (EARLY_MAPS, NORMALISED_CROPS, CROPS_TO_SCORE)  # what may lie in front of the network, the last one first


def score_crops_in_turn(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put what a scoring graph computes for each crop alone into a Scan over the crops.

    Args:
        model: a scoring graph.

    Returns:
        A copy with the same inputs and outputs. A graph with another structure is returned as it is.
    """
    nodes = list(model.graph.node)
    made_by = {name: node for node in nodes for name in node.output}
    start = next((name for name in STARTS if name in made_by), None)
    pool = next((node for node in nodes if node.op_type == POOLING_OPERATOR), None)
    ends = [pool.input[0]] if pool else [name for name in (OUTPUTS, MAPS) if name in made_by]
    if start is None or not ends:
        return model
    moved = _computed_from(start, ends, made_by)
    shapes = _shapes_of_crops(model, [start, *ends])
    if moved is None or shapes is None:
        return model
    inside = [node for node in nodes if node.output[0] in moved]
    if any(node.op_type in QUANTIZED_OPERATORS or _holds_graph(node) for node in inside):
        return model
    outside = [node for node in nodes if node.output[0] not in moved]
    used_outside = {name for node in outside for name in tensors_into(node)} | {o.name for o in model.graph.output}
    if (used_outside & {name for node in inside for name in node.output}) - set(ends):
        return model

    used_inside = {name for node in inside for name in tensors_into(node)}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used_inside]
    scan = helper.make_node("Scan", [start], ends, name=SCAN, num_scan_inputs=1)
    scan.attribute.append(helper.make_attribute("body", _body(inside, weights, start, ends, shapes)))
    place = min(i for i, node in enumerate(outside) if not set(ends).isdisjoint(tensors_into(node)))
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used_outside]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend([*outside[:place], scan, *outside[place:]])
    copy.graph.initializer.extend(kept)
    return copy


def _holds_graph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") for attribute in node.attribute)


def _computed_from(start: str, ends: Sequence[str], made_by: Mapping[str, onnx.NodeProto]) -> set[str] | None:
    """The tensors on the way to `ends`, from `start` and from constants; None if anything else comes in."""
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name == start or name in found:
            continue
        if name in made_by:
            found.update(made_by[name].output)
            waiting += [other for other in tensors_into(made_by[name]) if other]
        elif name == "images":
            return None
    return found


def _shapes_of_crops(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[int]] | None:
    """The shapes of tensors [crops, ...] without their first dimension; None if one of them is not known."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    dimensions = {value.name: value.type.tensor_type.shape.dim for value in inferred.graph.value_info}
    shapes = {name: [dim.dim_value for dim in dimensions.get(name, [])[1:]] for name in names}
    return shapes if all(shape and all(shape) for shape in shapes.values()) else None


def _body(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    start: str,
    ends: Sequence[str],
    shapes: Mapping[str, list[int]],
) -> onnx.GraphProto:
    """What is computed for one crop, from `start` to `ends`, each without the dimension of the crops."""
    first = numpy_helper.from_array(np.array([0], np.int64), f"{SCAN}.first_axis")
    inner = {name: f"{SCAN}.{name}" for name in (start, *ends)}  # other names than outside of the Scan
    one = {name: f"{inner[name]}.one" for name in inner}
    inside = [helper.make_node("Unsqueeze", [one[start], first.name], [inner[start]], name=inner[start])]
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [inner.get(name, name) for name in node.input]
        copy.output[:] = [inner.get(name, name) for name in node.output]
        inside.append(copy)
    inside += [helper.make_node("Squeeze", [inner[end], first.name], [one[end]], name=one[end]) for end in ends]
    inputs, *outputs = (
        helper.make_tensor_value_info(one[name], onnx.TensorProto.FLOAT, shapes[name]) for name in (start, *ends)
    )
    return helper.make_graph(inside, SCAN, [inputs], outputs, [*weights, first])
