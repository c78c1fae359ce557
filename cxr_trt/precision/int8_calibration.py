"""From histograms of activations to the magnitudes that become 127 in int8, and the record of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.precision import CALIBRATION_METHODS, CalibrationMethod
from cxr_trt.precision.int8 import INT8_LEVELS
from cxr_trt.precision.ranges import HISTOGRAM_BINS, Histogram

CLIPPING_PERCENTILE = 99.999
ENTROPY_STEP_BINS = 8  # between two thresholds that are tried
MIN_BIN_SHARE = 1e-9  # of a bin that coarse levels say is empty


@dataclass(frozen=True)
class Int8Calibration:
    """How a network is quantized; plain values only, as they stand in a bundle.

    weights_sha256: of the network, see `ScoringGraph.weights_sha256`. images: how many. images_sha256: hash of their
    files' hashes.
    thresholds: for each layer in int8, the magnitude of its input that becomes 127.
    sensitivity: for each layer, the error of the scores where it alone is in int8 (`cxr_trt.precision.sensitivity`).
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


def choose_clipping(histogram: Histogram, method: CalibrationMethod) -> float:
    """The magnitude at which a tensor is cut off.

    max: the largest seen. percentile: 99.999 % of the values lie below. entropy: of those that are tried, the one whose
    levels keep most of the distribution (least Kullback-Leibler divergence; Migacz, "8-bit inference with TensorRT",
    GTC 2017), zeros aside.
    """
    if method == "max" or histogram.top == 0.0:
        return histogram.top
    bin_width = histogram.top / HISTOGRAM_BINS
    if method == "percentile":
        below = np.cumsum(histogram.counts) / histogram.counts.sum()
        return float((np.searchsorted(below, CLIPPING_PERCENTILE / 100) + 1) * bin_width)
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0  # what a ReLU has cut off is held without error anyway
    tried = range(INT8_LEVELS + 1, HISTOGRAM_BINS + 1, ENTROPY_STEP_BINS)
    return float(min(tried, key=lambda bins: _divergence(counts, bins)) * bin_width)


def _divergence(counts: npt.NDArray[np.float64], bins: int) -> float:
    """KL divergence of the distribution, cut off after `bins`, from its form in INT8_LEVELS + 1 levels."""
    level = np.arange(bins) * (INT8_LEVELS + 1) // bins
    sums = np.bincount(level, counts[:bins])
    kept = counts[:bins].copy()
    kept[-1] += counts[bins:].sum()  # what is cut off becomes the largest level
    if kept.sum() == 0.0 or sums.sum() == 0.0:
        return np.inf
    present = kept > 0
    coarse = (sums / np.maximum(np.bincount(level, present), 1))[level]
    p, q = kept[present] / kept.sum(), coarse[present] / sums.sum()
    return float((p * np.log(p / np.maximum(q, MIN_BIN_SHARE))).sum())
