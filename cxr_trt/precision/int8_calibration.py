"""Choosing, from histograms of activations, the magnitudes that become the highest level of int8, and their record."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr_trt.precision import CALIBRATION_METHODS, CalibrationMethod
from cxr_trt.precision.int8 import INT8_LEVELS
from cxr_trt.precision.ranges import HISTOGRAM_BINS, Histogram

CLIPPING_PERCENTILE = 99.999
ENTROPY_STEP_BINS = 8  # distance of the thresholds that are tried
MIN_BIN_SHARE = 1e-9  # share assumed for a bin that is empty in the coarse distribution


@dataclass(frozen=True)
class Int8Calibration:
    """How a network is quantized; plain JSON values only, as they are written into a bundle.

    weights_sha256: hash of the network's weights, see `ScoringGraph.weights_sha256`.
    images: the number of calibration images. images_sha256: hash of the hashes of their files.
    thresholds: for each int8 layer, the magnitude of its input that becomes the highest level.
    sensitivity: for each unit, the error of the scores if it alone is int8 (`cxr_trt.precision.sensitivity`).
    features: for each layer whose result a dense block joins, the magnitude of each channel that becomes the highest
        level, if features are kept in int8 (`cxr_trt.precision.int8_features`). Earlier versions had none.
    """

    weights_sha256: str
    images: int
    images_sha256: str
    seed: int
    method: CalibrationMethod
    thresholds: Mapping[str, float]
    sensitivity: Mapping[str, float]
    features: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> "Int8Calibration":
        """From parsed JSON. Raises TypeError, ValueError or AttributeError if it is not a calibration."""
        calibration = cls(**fields)
        numbers = [*calibration.thresholds.values(), *calibration.sensitivity.values()]
        numbers += chain.from_iterable(calibration.features.values())
        if not all(0 <= value < np.inf for value in numbers) or calibration.method not in CALIBRATION_METHODS:
            raise ValueError("unknown method, or a number that is negative or not finite")
        return calibration

    def origin(self) -> dict[str, Any]:
        """The fields that say what the calibration was made from."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in ("thresholds", "sensitivity", "features")}


def unit_of(layer: str) -> str:
    """The unit of a layer, which is quantized as a whole or not at all: a dense layer's two convolutions, or itself."""
    return layer.rpartition(".")[0] if "denselayer" in layer else layer


def choose_clipping(histogram: Histogram, method: CalibrationMethod) -> float:
    """The magnitude at which the values of a tensor are clipped.

    max: the largest magnitude seen. percentile: 99.999 % of the values lie below it. entropy: of several candidates,
    the one whose int8 levels preserve the distribution best, apart from zeros (smallest Kullback-Leibler divergence;
    Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    if method == "max" or histogram.top == 0.0:
        return histogram.top
    bin_width = histogram.top / HISTOGRAM_BINS
    if method == "percentile":
        below = np.cumsum(histogram.counts) / histogram.counts.sum()
        return float((np.searchsorted(below, CLIPPING_PERCENTILE / 100) + 1) * bin_width)
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0  # zeros, which a ReLU produces, are represented exactly anyway
    candidates = range(INT8_LEVELS + 1, HISTOGRAM_BINS + 1, ENTROPY_STEP_BINS)
    return float(min(candidates, key=lambda bins: _divergence(counts, bins)) * bin_width)


def _divergence(counts: npt.NDArray[np.float64], bins: int) -> float:
    """KL divergence of the distribution, clipped after `bins`, from the same distribution in INT8_LEVELS + 1 levels."""
    level = np.arange(bins) * (INT8_LEVELS + 1) // bins
    sums = np.bincount(level, counts[:bins])
    clipped = counts[:bins].copy()
    clipped[-1] += counts[bins:].sum()  # larger values are clipped to the largest level
    if clipped.sum() == 0.0 or sums.sum() == 0.0:
        return np.inf
    present = clipped > 0
    coarse = (sums / np.maximum(np.bincount(level, present), 1))[level]
    p, q = clipped[present] / clipped.sum(), coarse[present] / sums.sum()
    return float((p * np.log(p / np.maximum(q, MIN_BIN_SHARE))).sum())
