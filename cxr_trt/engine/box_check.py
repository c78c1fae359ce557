"""Which boxes of a second pass (`cxr_trt.model.second_pass`) an engine's precision moves.

A box has its edges on cells, so a rounding either leaves it as it is or moves it by whole cells, and then the network
sees another part of the X-ray. So boxes are compared first, and probabilities only where the boxes agree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from cxr_trt.export.network_graph import FLOAT32_PART
from cxr_trt.precision.float16 import rounded_to_float16
from cxr_trt.precision.ranges import Images

BOXES = ".boxes."  # in the names of the nodes that find the boxes; the last one joins their edges


@dataclass(frozen=True, eq=False)
class BoxAgreement:
    """overlaps: intersection over union of each image's boxes in both graphs, [N, views]; 1 where they are the same."""

    overlaps: npt.NDArray[np.float64]

    @property
    def agrees(self) -> npt.NDArray[np.bool_]:
        """Whether all boxes of an image are the same, [N]."""
        same: npt.NDArray[np.bool_] = (self.overlaps == 1).all(1)
        return same

    def summary(self) -> dict[str, Any]:
        """Plain JSON values for the manifest."""
        return {
            "boxes": self.overlaps.size,
            "moved": int((self.overlaps != 1).sum()),
            "mean_overlap": float(self.overlaps.mean()),
        }


def compare_boxes(graph: onnx.ModelProto, engine_graph: onnx.ModelProto, images: Images) -> BoxAgreement | None:
    """Compare the boxes of a scoring graph with those of the graph that an engine is built from.

    Float16 is emulated: rounding is that of `rounded_to_float16`, and a GPU may round otherwise inside a layer.

    Args:
        graph: the scoring graph.
        engine_graph: the same in the engine's precision.
        images: uint8 [N, 1, height, width].

    Returns:
        None if the network has no second pass, or if it sees crops in turn, which only float32 graphs do.
    """
    name = _boxes_of(graph)
    if name is None or _boxes_of(engine_graph) is None:
        return None
    first, second = (_run(model, name, images) for model in (graph, rounded_to_float16(engine_graph)))
    return BoxAgreement(overlaps(first, second))


def overlaps(boxes: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes [..., 4]: top, left, bottom, right."""
    a, b = boxes.astype(np.float64), others.astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    shares: npt.NDArray[np.float64] = shared / (areas[0] + areas[1] - shared)
    return shares


def _boxes_of(model: onnx.ModelProto) -> str | None:
    """The tensor [N * views, 4] of boxes."""
    names = [
        node.output[0]
        for node in model.graph.node
        if f".{FLOAT32_PART}." in node.name and BOXES in node.name and node.op_type == "Concat"
    ]
    return names[-1] if names else None


def _run(model: onnx.ModelProto, name: str, images: Images) -> npt.NDArray[np.float32]:
    """The boxes of each image, [N, views, 4]."""
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    instrumented.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(instrumented.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.stack([session.run([name], {"images": image[None]})[0] for image in images])
