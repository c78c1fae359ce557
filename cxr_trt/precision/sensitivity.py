"""Which layers int8 harms most: each unit is quantized on its own, and its effect on the scores is measured."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from cxr_trt.precision.int8 import quantize
from cxr_trt.precision.int8_calibration import unit_of
from cxr_trt.precision.ranges import Images


def scan_sensitivity(
    model: onnx.ModelProto, thresholds: Mapping[str, float], images: Images, on_progress: Callable[[float], None]
) -> dict[str, float]:
    """Quantize one unit at a time and measure how much the scores change.

    Args:
        model: a float32 graph; one with few views is the fastest.
        thresholds: the int8 thresholds of all layers that could be quantized, see `quantize`.
        images: a few real X-rays, uint8 [N, 1, size, size].
        on_progress: called with the fraction done.

    Returns:
        The error of each unit: the root mean square error of the scores (log odds), divided by their standard deviation
        across the images, averaged over the findings. It stands in for the loss of AUC, which needs labels: the AUC
        depends only on the order of the images, and errors that are small compared with this deviation hardly change
        the order.
    """
    exact = _scores(model, images)
    deviations = exact.std(0)
    units = sorted({unit_of(layer) for layer in thresholds})
    errors = {}
    for i, unit in enumerate(units):
        alone = {layer: value for layer, value in thresholds.items() if unit_of(layer) == unit}
        error = np.sqrt(((_scores(quantize(model, alone), images) - exact) ** 2).mean(0))
        errors[unit] = float((error / np.maximum(deviations, np.finfo(np.float32).eps)).mean())
        on_progress((i + 1) / len(units))
    return errors


def _scores(model: onnx.ModelProto, images: Images) -> npt.NDArray[np.float64]:
    """The log odds [N, findings] of the images."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = [session.run(["probabilities"], {"images": image[None]})[0][0] for image in images]
    p = np.clip(np.array(results, np.float64), 1e-9, 1 - 1e-9)
    scores: npt.NDArray[np.float64] = np.log(p / (1 - p))
    return scores
