"""Which layers int8 costs most: each alone is quantized, and its effect on the scores measured."""

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
    """Quantize one unit at a time.

    Args:
        model: a float32 graph; its smallest form, with few views, is the fastest.
        thresholds: of all layers that could be quantized, for `quantize`.
        images: uint8 [N, 1, size, size], some real ones.
        on_progress: called with the fraction done.

    Returns:
        For each unit the mean over the findings of: root mean square error of the scores (log odds), divided by their
        standard deviation between the images. Without labels, that is what can be said of the AUC: it depends on the
        order of the images alone, and an error that is small against their spread leaves the order as it is.
    """
    exact = _scores(model, images)
    spread = exact.std(0)
    units = sorted({unit_of(layer) for layer in thresholds})
    errors = {}
    for i, unit in enumerate(units):
        alone = {layer: value for layer, value in thresholds.items() if unit_of(layer) == unit}
        error = np.sqrt(((_scores(quantize(model, alone), images) - exact) ** 2).mean(0))
        errors[unit] = float((error / np.maximum(spread, np.finfo(np.float32).eps)).mean())
        on_progress((i + 1) / len(units))
    return errors


def _scores(model: onnx.ModelProto, images: Images) -> npt.NDArray[np.float64]:
    """Log odds [N, 14]."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = [session.run(["probabilities"], {"images": image[None]})[0][0] for image in images]
    p = np.clip(np.array(results, np.float64), 1e-9, 1 - 1e-9)
    scores: npt.NDArray[np.float64] = np.log(p / (1 - p))
    return scores
