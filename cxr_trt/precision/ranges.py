"""How large the network's activations get on images: float16 must be able to hold them, and int8 is scaled to them."""

from collections.abc import Callable, Collection, Mapping
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
    """What was measured, by tensor name.

    largest: the largest magnitude of every tensor. histograms: of some tensors. channels: the largest magnitude of each
    channel of some tensors, float32 [C].
    """

    largest: dict[str, float]
    histograms: dict[str, Histogram]
    channels: dict[str, npt.NDArray[np.float32]]


def measure_ranges(
    model: onnx.ModelProto,
    images: Images,
    counted: Collection[str],
    on_progress: Callable[[float], None],
    by_channel: Collection[str] = (),
) -> Ranges:
    """Run a float32 graph on images and measure every activation.

    Args:
        model: a float32 graph; one with few views is the fastest.
        images: uint8 [N, 1, height, width].
        counted: tensors to make histograms of, from every SAMPLING_STEP-th of their values.
        on_progress: called with the fraction done.
        by_channel: activations [N, C, h, w] whose channels are measured, too.

    Returns:
        The ranges. A tensor that overflowed or is not a number has the largest magnitude infinity; a channel may also
        have NaN.
    """
    types = element_types(model)
    names = [name for node in model.graph.node for name in node.output]
    extremes = {f"{name}.largest": name for name in names if types.get(name) == TensorProto.FLOAT}
    channels = {f"{name}.largest_of_channels": name for name in by_channel}
    import onnxruntime  # here: opening an engine imports this module

    session = onnxruntime.InferenceSession(
        _instrumented(model, extremes, counted, channels).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    largest = dict.fromkeys(extremes.values(), 0.0)
    histograms = {name: Histogram.empty() for name in counted}
    of_channels: dict[str, npt.NDArray[np.float32]] = {}
    outputs = [*extremes, *channels, *counted]
    for i, image in enumerate(images):
        results = dict(zip(outputs, session.run(outputs, {"images": image[None]}), strict=True))
        for output, name in extremes.items():
            value = float(results[output])
            largest[name] = max(largest[name], value if np.isfinite(value) else np.inf)
        for output, name in channels.items():
            of_channels[name] = np.maximum(of_channels.get(name, 0), results[output])
        for name in counted:
            histograms[name].add(results[name].reshape(-1)[i % SAMPLING_STEP :: SAMPLING_STEP])
        on_progress((i + 1) / len(images))
    return Ranges(largest, histograms, of_channels)


def _instrumented(
    model: onnx.ModelProto, extremes: Mapping[str, str], counted: Collection[str], by_channel: Mapping[str, str]
) -> onnx.ModelProto:
    """The graph with more outputs: the largest magnitudes of tensors and of channels, and the counted tensors."""
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    graph = instrumented.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), "all_axes"))
    for output, name in extremes.items():
        graph.node.append(helper.make_node("Abs", [name], [f"{name}.magnitude"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}.magnitude", "all_axes"], [output], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
    if by_channel:
        graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "all_but_channels"))
    for output, name in by_channel.items():
        graph.node.append(
            helper.make_node("ReduceMax", [f"{name}.magnitude", "all_but_channels"], [output], keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in counted)
    return instrumented
