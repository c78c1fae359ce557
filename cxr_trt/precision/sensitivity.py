"""Which layers int8 and float16 harm most: each is changed on its own, and its effect on the scores is measured."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from cxr_trt.precision.float16 import TYPE_KEEPING_OPERATORS, in_network, layer_of, rounded_to_float16, to_float16
from cxr_trt.precision.int8 import quantize
from cxr_trt.precision.int8_calibration import unit_of
from cxr_trt.precision.ranges import Images

ALWAYS_FLOAT16 = ("Conv", "MatMul", "Gemm")


def scan_sensitivity(
    model: onnx.ModelProto, thresholds: Mapping[str, float], images: Images, on_progress: Callable[[float], None]
) -> dict[str, float]:
    """Quantize one unit at a time and measure how much the scores change.

    Args:
        model: a float32 graph; one with few views is the fastest.
        thresholds: the int8 thresholds of all layers that could be quantized, see `quantize`.
        images: a few real X-rays, uint8 [N, 1, height, width].
        on_progress: called with the fraction done.

    Returns:
        The error of each unit: the root mean square error of the scores (log odds), divided by their standard deviation
        across the images, averaged over the findings. It stands in for the loss of AUC, which needs labels: the AUC
        depends only on the order of the images, and errors that are small compared with this deviation hardly change
        the order.
    """
    exact = _scores(model, images)
    units = sorted({unit_of(layer) for layer in thresholds})
    errors = {}
    for i, unit in enumerate(units):
        alone = {layer: value for layer, value in thresholds.items() if unit_of(layer) == unit}
        errors[unit] = _error(_scores(quantize(model, alone), images), exact)
        on_progress((i + 1) / len(units))
    return errors


def scan_kinds(model: onnx.ModelProto, images: Images, on_progress: Callable[[float], None]) -> dict[str, float]:
    """Run one kind of the network's operators at a time in float16, and measure how much the scores change.

    Convolutions and matrix products are left out: without them, float16 would not be worth anything.

    Args:
        model: a float32 graph; one with few views is the fastest.
        images: a few X-rays, uint8 [N, 1, height, width].
        on_progress: called with the fraction done.

    Returns:
        The error of each kind, by the name of its operator, as `scan_sensitivity` measures it.
    """
    exact = _scores(model, images)
    layers = {layer_of(node.name): node.op_type for node in model.graph.node if in_network(node.name)}
    kinds = sorted({*layers.values()} - {*TYPE_KEEPING_OPERATORS, *ALWAYS_FLOAT16})
    errors = {}
    for i, kind in enumerate(kinds):
        others = {layer for layer, operator in layers.items() if operator != kind}
        found = _scores(rounded_to_float16(to_float16(model, others)), images)
        errors[kind] = _error(found, exact)
        on_progress((i + 1) / len(kinds))
    return errors


def _error(scores: npt.NDArray[np.float64], exact: npt.NDArray[np.float64]) -> float:
    error = np.sqrt(((scores - exact) ** 2).mean(0))
    return float((error / np.maximum(exact.std(0), np.finfo(np.float32).eps)).mean())


def _scores(model: onnx.ModelProto, images: Images) -> npt.NDArray[np.float64]:
    """The log odds [N, findings] of the images."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = [session.run(["probabilities"], {"images": image[None]})[0][0] for image in images]
    p = np.clip(np.array(results, np.float64), 1e-9, 1 - 1e-9)
    scores: npt.NDArray[np.float64] = np.log(p / (1 - p))
    return scores
