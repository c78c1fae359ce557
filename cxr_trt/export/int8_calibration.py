"""From histograms of activations to the magnitudes that become 127 in int8, and the record of it."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from cxr_trt.export.quantize import LEVELS
from cxr_trt.export.ranges import BINS, Histogram
from cxr_trt.precision import CALIBRATION_METHODS, CalibrationMethod

PERCENTILE = 99.999
ENTROPY_STEP = 8  # bins between two thresholds that are tried
SMALLEST_SHARE = 1e-9  # of a bin that coarse levels say is empty


@dataclass(frozen=True)
class Int8Calibration:
    """How a network is quantized; plain values only, as they stand in a bundle.

    weights_sha256: of the network, see `weights_hash`. images, images_sha256: how many, and of their files' hashes.
    thresholds: for each layer in int8, the magnitude of its input that becomes 127.
    sensitivity: for each layer, the error of the scores where it alone is in int8 (`cxr_trt.export.sensitivity`).
    """

    weights_sha256: str
    images: int
    images_sha256: str
    seed: int
    method: CalibrationMethod
    thresholds: Mapping[str, float]
    sensitivity: Mapping[str, float]

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> "Int8Calibration":
        """From parsed JSON. Raises TypeError, ValueError or AttributeError for what is none."""
        calibration = cls(**fields)
        numbers = [*calibration.thresholds.values(), *calibration.sensitivity.values()]
        if not all(0 <= value < np.inf for value in numbers) or calibration.method not in CALIBRATION_METHODS:
            raise ValueError("no such method, or a number that none can be")
        return calibration

    def origin(self) -> dict[str, Any]:
        """What it was made from."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in ("thresholds", "sensitivity")}


def unit_of(layer: str) -> str:
    """What is quantized or not as one: the two convolutions of a dense layer, or a single one."""
    return layer.rpartition(".")[0] if "denselayer" in layer else layer


def weights_hash(model: onnx.ModelProto) -> str:
    """Sha256 of a graph's network: its weights by name, whatever order they lie in and whatever views are cut."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        if tensor.data_type != TensorProto.FLOAT or not tensor.name.startswith(("features.", "transfer.")):
            continue
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)} ".encode())
        digest.update(numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def threshold(histogram: Histogram, method: CalibrationMethod) -> float:
    """The magnitude at which a tensor is cut off.

    max: the largest seen. percentile: 99.999 % of the values lie below. entropy: of those that are tried, the one whose
    levels keep most of the distribution (least Kullback-Leibler divergence; Migacz, "8-bit inference with TensorRT",
    GTC 2017), zeros aside.
    """
    if method == "max" or histogram.top == 0.0:
        return histogram.top
    bin_width = histogram.top / BINS
    if method == "percentile":
        below = np.cumsum(histogram.counts) / histogram.counts.sum()
        return float((np.searchsorted(below, PERCENTILE / 100) + 1) * bin_width)
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0  # what a ReLU has cut off is held without error anyway
    tried = range(LEVELS + 1, BINS + 1, ENTROPY_STEP)
    return float(min(tried, key=lambda bins: _divergence(counts, bins)) * bin_width)


def _divergence(counts: npt.NDArray[np.float64], bins: int) -> float:
    """KL divergence of the distribution, cut off after `bins`, from its form in LEVELS + 1 levels."""
    level = np.arange(bins) * (LEVELS + 1) // bins
    sums = np.bincount(level, counts[:bins])
    kept = counts[:bins].copy()
    kept[-1] += counts[bins:].sum()  # what is cut off becomes the largest level
    if kept.sum() == 0.0 or sums.sum() == 0.0:
        return np.inf
    present = kept > 0
    coarse = (sums / np.maximum(np.bincount(level, present), 1))[level]
    p, q = kept[present] / kept.sum(), coarse[present] / sums.sum()
    return float((p * np.log(p / np.maximum(q, SMALLEST_SHARE))).sum())
