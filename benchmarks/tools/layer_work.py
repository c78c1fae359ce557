"""What each layer of an OpenVINO engine does for one X-ray: its kind, its multiplications, and the bytes it moves.

They are read from the graph that OpenVINO executes, after it has fused layers and chosen their types.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import openvino

from cxr_trt.engine.cpu.openvino import LOOP, compile_properties, core

NORM = "norm, ReLU and sums"
JOINING = "joining features"
REST = "crops and the rest"
KINDS = {
    "Subgraph": NORM,
    "Eltwise": NORM,
    "FakeQuantize": NORM,
    "Concatenation": JOINING,
    "Pooling": "pooling",
    "Reorder": "changing the layout",
}
"""Kinds of OpenVINO's layers but convolutions; others are `REST`."""
CONVOLUTIONS = {(1, 1): "1x1 convolutions", (3, 3): "3x3 convolutions", (7, 7): "first convolution"}


class LayerWork(NamedTuple):
    """multiplications and bytes: of all times that the layer is computed. The bytes are read, with weights, or written.

    kind: one of the values of KINDS or CONVOLUTIONS, or REST.
    """

    kind: str
    multiplications: int
    bytes: int


def layer_work(engine: Path, settings: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, LayerWork]:
    """The work of each layer of an engine by the layer's name, for an input uint8 [N, 1, height, width] of that shape.

    Raises:
        ValueError: two layers have the same name.
    """
    model = core().read_model(engine)
    model.reshape(openvino.PartialShape(shape))
    properties = compile_properties(settings)
    found = _executed(model, properties, times=1)
    for loop in (node for node in model.get_ops() if node.get_type_name() == LOOP):
        del found[loop.get_friendly_name()]
        inside = _executed(loop.get_body(), properties, times=loop.input(0).get_shape()[0])
        if both := found.keys() & inside.keys():
            raise ValueError(f"several layers are called {sorted(both)[0]}, so what they take cannot be told apart")
        found |= inside
    return found


def _executed(model: openvino.Model, properties: Mapping[str, Any], times: int) -> dict[str, LayerWork]:
    nodes = core().compile_model(model, "CPU", dict(properties)).get_runtime_model().get_ordered_ops()
    constants = {node.get_friendly_name() for node in nodes if _type(node) == "Const"}
    return {node.get_friendly_name(): _work(node, times) for node in nodes if node.get_friendly_name() not in constants}


def _type(node: openvino.Node) -> str:
    return str(node.get_rt_info()["layerType"].astype(str))


def _work(node: openvino.Node, times: int) -> LayerWork:
    moved = [*node.inputs(), *node.outputs()]
    count = times * sum(prod(port.get_shape()) * port.get_element_type().size for port in moved)
    if _type(node) == "Convolution":
        kernel = tuple(node.input(1).get_shape())  # [out, in / groups, height, width]
        kind = CONVOLUTIONS.get(kernel[-2:], "other convolutions")
        return LayerWork(kind, times * prod(node.output(0).get_shape()) * prod(kernel[1:]), count)
    return LayerWork(KINDS.get(_type(node), REST), 0, count)
