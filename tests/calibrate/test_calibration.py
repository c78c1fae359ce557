import json
import shutil

import numpy as np
import pytest

from cxr_trt.calibrate.calibration import CALIBRATION_FILE, fit_calibration, read_calibration
from cxr_trt.calibrate.fit import ThresholdGoal
from cxr_trt.engine.manifest import read_manifest
from cxr_trt.errors import BundleError
from cxr_trt.findings import FINDINGS
from cxr_trt.score.engine import Engine


def fitted(engine, method="platt", goal=ThresholdGoal("youden")):  # noqa: B008 - it is frozen
    """300 images; Hernia has too few positives, and the scores of Nodule fall with the finding."""
    rng = np.random.default_rng(0)
    labels = rng.random((300, 14)) < 0.3
    labels[:, 13] = np.arange(300) < 3
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.15), 0, 1)
    scores[:, 5] = 1 - scores[:, 5]
    by_finding = (dict(zip(FINDINGS, columns.T, strict=True)) for columns in (scores, labels))
    return fit_calibration(FINDINGS, *by_finding, method, goal, engine), scores.astype(np.float32).astype(float)


@pytest.fixture
def bundle(cheap_bundle, tmp_path):
    return shutil.copytree(cheap_bundle, tmp_path / "e.cxr")


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_what_is_written_is_what_is_read(bundle, method):
    calibration, scores = fitted(read_manifest(bundle).fingerprint, method)
    (bundle / CALIBRATION_FILE).write_text(calibration.to_json())
    with Engine(bundle) as engine:
        read = engine.calibration
    assert read == calibration
    assert read.fingerprint == calibration.fingerprint
    assert list(read.left_out) == ["Nodule", "Hernia"]
    assert [read.values(tuple(row)) for row in scores] == [calibration.values(tuple(row)) for row in scores]


def test_the_engine_stays_the_same(bundle):
    before = read_manifest(bundle).fingerprint
    (bundle / CALIBRATION_FILE).write_text(fitted(before)[0].to_json())
    assert read_manifest(bundle).fingerprint == before


def test_values_stand_in_the_order_of_the_columns():
    calibration, scores = fitted("e")
    row = dict(zip(calibration.columns, calibration.values(tuple(scores[0])), strict=True))
    assert row["calibration"] == calibration.fingerprint
    for i, name in enumerate(FINDINGS):
        if name in ("Nodule", "Hernia"):
            assert (row[f"{name}_calibrated"], row[f"{name}_positive"]) == (None, None)
        else:
            fit = calibration.fits[name]
            assert row[f"{name}_calibrated"] == fit.scaling(np.array(scores[0, i]))
            assert row[f"{name}_positive"] == ("yes" if scores[0, i] >= fit.threshold.score else "no")
    assert calibration.values(None) == (calibration.fingerprint, *[None] * 28)


def test_the_image_that_the_threshold_was_read_from_is_positive():
    calibration, scores = fitted("e", goal=ThresholdGoal("sensitivity", 0.8))
    threshold = calibration.fits["Mass"].threshold
    row = scores[np.flatnonzero(scores[:, 4] == threshold.score)[0]]
    assert calibration.values(tuple(row))[1 + 14 + 4] == "yes"


def damaged(text):
    fields = json.loads(text)
    yield "", "damaged"
    yield "[]", "damaged"
    yield text.replace('"format": 1', '"format": 2'), "damaged"
    yield text.replace('"slope": ', '"slope": 1'), "changed since it was fitted"
    yield text.replace('"slope": ', '"slope": -'), "changed since it was fitted"
    yield text.replace('"score": 0', '"score": NaN, "x": 0', 1), "damaged"
    del fields["fits"]["Mass"]
    yield json.dumps(fields), "damaged"
    fields = json.loads(text)
    fields["fits"]["Mass"]["scaling"]["slope"] = float("inf")
    yield json.dumps(fields), "damaged"


def test_a_calibration_that_is_not_as_it_was_written_is_refused(bundle):
    engine = read_manifest(bundle).fingerprint
    text = fitted(engine)[0].to_json()
    for content, sentence in damaged(text):
        (bundle / CALIBRATION_FILE).write_text(content)
        with pytest.raises(BundleError, match=sentence):
            Engine(bundle)
    (bundle / CALIBRATION_FILE).write_text(fitted("another")[0].to_json())
    with pytest.raises(BundleError, match=f"fitted for the engine another, but this is {engine}"):
        read_calibration(bundle, engine, FINDINGS)
    (bundle / CALIBRATION_FILE).rename(bundle.parent / "elsewhere")
    (bundle / CALIBRATION_FILE).symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        read_calibration(bundle, engine, FINDINGS)
