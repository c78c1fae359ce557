"""Histograms of activations, and the thresholds that follow from them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from cxr_trt.errors import BundleError
from cxr_trt.export.scoring_graph import GraphInfo, ScoringGraph
from cxr_trt.precision.int8_calibration import Int8Calibration, choose_clipping, unit_of
from cxr_trt.precision.plan import PrecisionPlan
from cxr_trt.precision.ranges import HISTOGRAM_BINS, Histogram, measure_ranges
from cxr_trt.spec import Specification

RNG = np.random.default_rng(0)


def histogram(values):
    result = Histogram.empty()
    result.add(np.asarray(values, np.float32))
    return result


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_histogram_that_grows_loses_no_value(parts):
    grown = Histogram.empty()
    for part in parts:
        grown.add(np.array(part, np.float32))
    values = np.abs(np.concatenate(parts))
    if grown.top == 0:
        assert not values.any()
        return
    assert grown.counts.sum() >= np.count_nonzero(values)
    assert grown.top >= values.max()
    above = int(np.ceil(np.median(values) / grown.top * HISTOGRAM_BINS))
    assert grown.counts[above + 1 :].sum() <= (values > np.median(values)).sum()


def test_max_and_percentile():
    values = np.linspace(0, 1, 200_001)
    values[-1] = 40
    assert choose_clipping(histogram(values), "max") == 40
    assert choose_clipping(histogram(values), "percentile") == pytest.approx(1, abs=40 / HISTOGRAM_BINS)
    assert choose_clipping(Histogram.empty(), "entropy") == 0


def test_entropy_cuts_a_long_thin_tail_and_keeps_a_flat_distribution():
    bulk = np.abs(RNG.normal(0, 1, 200_000))
    tail = np.concatenate([bulk, [100.0]])
    assert 2 < choose_clipping(histogram(tail), "entropy") < 15
    assert choose_clipping(histogram(RNG.uniform(0, 1, 200_000)), "entropy") > 0.95


def test_zeros_do_not_pull_the_entropy_threshold_down():
    bulk = np.abs(RNG.normal(0, 1, 50_000))
    with_zeros = np.concatenate([bulk, np.zeros(500_000)])
    plain, sparse = choose_clipping(histogram(bulk), "entropy"), choose_clipping(histogram(with_zeros), "entropy")
    assert sparse == pytest.approx(plain, rel=0.1)


GRAPH = """
<ir_version: 9, opset_import: ["": 19]>
g (uint8[N, 1, 2, 2] images) => (float[N, 1, 2, 2] probabilities)
<float minus = {-3.0}, float zero = {0.0}>
{
    pixels = Cast <to: int = 1> (images)
    tripled = Mul (pixels, minus)
    odd = Div (pixels, zero)
    probabilities = Relu (tripled)
}
"""


def test_ranges_are_of_magnitudes_and_what_is_not_finite_is_infinite():
    images = np.array([[[[1, 2], [3, 4]]], [[[0, 5], [1, 1]]]], np.uint8)
    fractions = []
    ranges = measure_ranges(parser.parse_model(GRAPH), images, ["tripled"], fractions.append)
    assert ranges.largest == {"pixels": 5, "tripled": 15, "odd": np.inf, "probabilities": 0}
    assert ranges.histograms["tripled"].counts.sum() == 2  # one value of seven, at least one per image
    assert fractions == [0.5, 1.0]


CALIBRATION = Int8Calibration(
    *("a" * 64, 256, "b" * 64, 0, "entropy", {"features.x.conv1": 1.5}, {"features.x": 0.01}),
    features={"features.x.conv2": [0.5, 2.0]},
)


def test_a_plan_survives_its_json():
    plan = PrecisionPlan("int8", ("features.conv0",), {"features.conv0": 12.0}, CALIBRATION)
    assert PrecisionPlan.from_json(plan.to_json()) == plan
    assert PrecisionPlan.from_json(PrecisionPlan("fp16").to_json()) == PrecisionPlan("fp16")


def test_an_earlier_calibration_still_belongs_to_its_network(paper_model):
    """tests/precision/data/precision_0.1.0.json was written for the shipped network by an earlier version."""
    text = (Path(__file__).parent / "data" / "precision_0.1.0.json").read_text()
    plan = PrecisionPlan.from_json(text)
    plan.check_weights(ScoringGraph.load(paper_model))
    assert not plan.calibration.features  # which came later
    fields = json.loads(plan.to_json())
    del fields["calibration"]["features"]
    assert fields == json.loads(text)


@pytest.mark.parametrize(
    "change",
    [
        {"calibration": None},
        {"precision": "int4"},
        {"calibration": {**dataclasses.asdict(CALIBRATION), "method": "guess"}},
        {"calibration": {**dataclasses.asdict(CALIBRATION), "thresholds": {"a": -1.0}}},
        {"calibration": {**dataclasses.asdict(CALIBRATION), "features": {"a": [1.0, float("nan")]}}},
        {"calibration": {**dataclasses.asdict(CALIBRATION), "features": {"a": 1.0}}},
        {"calibration": {"thresholds": {}}},
        {"unknown": 1},
        {"float32": 3},
    ],
)
def test_another_json_is_refused(change):
    fields = {**json.loads(PrecisionPlan("int8", calibration=CALIBRATION).to_json()), **change}
    with pytest.raises(BundleError, match="damaged or from another version"):
        PrecisionPlan.from_json(json.dumps(fields))


def test_the_hash_of_weights_depends_on_values_and_not_on_order():
    tensors = [numpy_helper.from_array(RNG.random(3, np.float32), f"features.{name}") for name in "ab"]

    def sha256(parts):
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], parts))
        return ScoringGraph(model, GraphInfo.of_this_version(Specification(), "trained", "0" * 64)).weights_sha256

    assert sha256(tensors) == sha256(tensors[::-1])
    other = numpy_helper.from_array(np.nextafter(numpy_helper.to_array(tensors[0]), 2, dtype=np.float32), "features.a")
    assert sha256([other, tensors[1]]) != sha256(tensors)
    views = numpy_helper.from_array(np.ones(3, np.float32), "maps.merge")
    assert sha256([*tensors, views]) == sha256(tensors)


def test_the_convolutions_of_a_dense_layer_are_one_unit():
    layer = "features.denseblock1.denselayer2"
    assert unit_of(f"{layer}.conv1") == unit_of(f"{layer}.conv2") == layer
    assert unit_of("features.transition1.conv") == "features.transition1.conv"
