"""How large the network's activations get on images: float16 must be able to hold them, and int8 is scaled to them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cxr_trt.precision.float16 import element_types

HISTOGRAM_BINS = 2048
SAMPLING_STEP = 7  # a histogram counts every seventh value of a tensor

Images = npt.NDArray[np.uint8]
"""Preprocessed images, [N, 1, height, width]."""


@dataclass
class Histogram:
    """Magnitudes of a tensor: `counts` in equal bins from 0 to `top`. The range doubles as larger values are added."""

    counts: npt.NDArray[np.int64]
    top: float

    @classmethod
    def empty(cls) -> "Histogram":
        return cls(np.zeros(HISTOGRAM_BINS, np.int64), 0.0)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the magnitudes of `values`, of any shape. Values that are not finite are ignored."""
        magnitudes = np.abs(values.reshape(-1))
        magnitudes = magnitudes[np.isfinite(magnitudes)]
        largest = float(magnitudes.max(initial=0.0))
        if self.top == 0.0:
            self.top = largest
        while self.top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(HISTOGRAM_BINS // 2, np.int64)])
            self.top *= 2
        if self.top > 0.0:
            bins = np.minimum((magnitudes / np.float32(self.top) * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
            self.counts += np.bincount(bins, minlength=HISTOGRAM_BINS)


@dataclass(frozen=True)
class Ranges:
    """What was measured, by tensor name: the largest magnitude of every tensor, and histograms of some tensors."""

    largest: dict[str, float]
    histograms: dict[str, Histogram]


def measure_ranges(
    model: onnx.ModelProto, images: Images, counted: Collection[str], on_progress: Callable[[float], None]
) -> Ranges:
    """Run a float32 graph on images and measure every activation.

    Args:
        model: a float32 graph; one with few views is the fastest.
        images: uint8 [N, 1, height, width].
        counted: tensors to make histograms of, from every SAMPLING_STEP-th of their values.
        on_progress: called with the fraction done.

    Returns:
        The ranges. A tensor that overflowed or is not a number has the largest magnitude infinity.
    """
    types = element_types(model)
    names = [name for node in model.graph.node for name in node.output]
    extremes = {f"{name}.largest": name for name in names if types.get(name) == TensorProto.FLOAT}
    import onnxruntime  # here: opening an engine imports this module

    session = onnxruntime.InferenceSession(
        _instrumented(model, extremes, counted).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    largest = dict.fromkeys(extremes.values(), 0.0)
    histograms = {name: Histogram.empty() for name in counted}
    for i, image in enumerate(images):
        results = session.run([*extremes, *counted], {"images": image[None]})
        for name, value in zip(extremes.values(), results, strict=False):
            largest[name] = max(largest[name], float(value) if np.isfinite(value) else np.inf)
        for name, values in zip(counted, results[len(extremes) :], strict=True):
            histograms[name].add(values.reshape(-1)[i % SAMPLING_STEP :: SAMPLING_STEP])
        on_progress((i + 1) / len(images))
    return Ranges(largest, histograms)


def _instrumented(model: onnx.ModelProto, extremes: dict[str, str], counted: Collection[str]) -> onnx.ModelProto:
    """The graph with more outputs: the largest magnitude of every tensor, and the counted tensors."""
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    graph = instrumented.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), "all_axes"))
    for output, name in extremes.items():
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.magnitude"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.magnitude", "all_axes"], [output], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in counted)
    return instrumented
