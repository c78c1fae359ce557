"""How large the network's activations get on real images: what float16 must hold, and what int8 is scaled to."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HISTOGRAM_BINS = 2048
SAMPLING_STEP = 7  # a histogram counts every seventh value of a tensor

Images = npt.NDArray[np.uint8]
"""Preprocessed images, [N, 1, size, size]."""


@dataclass
class Histogram:
    """Magnitudes of a tensor: `counts` in equal bins from 0 to `top`. It grows to hold what comes."""

    counts: npt.NDArray[np.int64]
    top: float

    @classmethod
    def empty(cls) -> "Histogram":
        return cls(np.zeros(HISTOGRAM_BINS, np.int64), 0.0)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the magnitudes of `values`, of any shape. Those that are not finite are left out."""
        magnitudes = np.abs(values.reshape(-1))
        magnitudes = magnitudes[np.isfinite(magnitudes)]
        largest = float(magnitudes.max(initial=0.0))
        if self.top == 0.0:
            self.top = largest
        while self.top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(HISTOGRAM_BINS // 2, np.int64)])
            self.top *= 2
        if self.top > 0.0:
            places = np.minimum(
                (magnitudes / np.float32(self.top) * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1
            )
            self.counts += np.bincount(places, minlength=HISTOGRAM_BINS)


@dataclass(frozen=True)
class Ranges:
    """What was seen, by name of the tensor: the largest magnitude of each, and histograms of some."""

    largest: dict[str, float]
    histograms: dict[str, Histogram]


def measure_ranges(
    model: onnx.ModelProto, images: Images, counted: Collection[str], on_progress: Callable[[float], None]
) -> Ranges:
    """Run a float32 graph on images and look at every activation.

    Args:
        model: a float32 graph; its smallest form, with few views, is the fastest.
        images: uint8 [N, 1, size, size].
        counted: tensors to make histograms of, from one in SAMPLING_STEP of their values.
        on_progress: called with the fraction done.

    Returns:
        A tensor that overflowed or is not a number has the largest magnitude infinity.
    """
    extremes = {f"{name}.largest": name for node in model.graph.node for name in node.output}
    session = onnxruntime.InferenceSession(
        _watched(model, extremes, counted).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    largest = dict.fromkeys(extremes.values(), 0.0)
    histograms = {name: Histogram.empty() for name in counted}
    for i, image in enumerate(images):
        seen = session.run([*extremes, *counted], {"images": image[None]})
        for name, value in zip(extremes.values(), seen, strict=False):
            largest[name] = max(largest[name], float(value) if np.isfinite(value) else np.inf)
        for name, values in zip(counted, seen[len(extremes) :], strict=True):
            histograms[name].add(values.reshape(-1)[i % SAMPLING_STEP :: SAMPLING_STEP])
        on_progress((i + 1) / len(images))
    return Ranges(largest, histograms)


def _watched(model: onnx.ModelProto, extremes: dict[str, str], counted: Collection[str]) -> onnx.ModelProto:
    """The graph with the largest magnitude of every tensor, and the counted tensors, as outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), "all_axes"))
    for output, name in extremes.items():
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.magnitude"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.magnitude", "all_axes"], [output], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in counted)
    return watched
