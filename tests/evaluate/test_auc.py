import numpy as np
import pytest

from cxr_trt.evaluate.auc import average_precision, evaluate, roc_auc, to_json, to_markdown
from cxr_trt.findings import FINDINGS


@pytest.fixture(scope="module")
def case():
    """300 images of 80 patients; scores in 40 steps, so that most are ties."""
    rng = np.random.default_rng(0)
    labels = rng.random((300, 14)) < np.linspace(0.05, 0.95, 14)
    scores = np.round(rng.random((300, 14)) + 0.4 * labels, 1) + rng.integers(0, 3, (300, 14)) / 100
    return scores, labels, rng.integers(80, size=300)


def by_pairs(scores, labels):
    """The definition: the share of pairs in the right order, a tie counting half."""
    above, below = scores[labels][:, None], scores[~labels][None]
    return ((above > below) + 0.5 * (above == below)).mean()


def test_areas_by_hand():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert roc_auc(scores, labels, np.ones((4, 1), int)) == [0.75]
    assert average_precision(scores, labels) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert roc_auc(np.ones(4), labels, np.ones((4, 1), int)) == [0.5]
    assert average_precision(np.ones(4), labels) == 0.5


def test_areas_agree_with_the_definition_and_with_scikit_learn(case):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs pip install scikit-learn")
    scores, labels, patients = case
    result = evaluate(FINDINGS, scores, labels, patients, resamples=0)
    for column, area in enumerate(result.findings.values()):
        expected = metrics.roc_auc_score(labels[:, column], scores[:, column])
        assert abs(area.auc - expected) <= 1e-12
        assert abs(area.auc - by_pairs(scores[:, column], labels[:, column])) <= 1e-12
        assert abs(area.auprc - metrics.average_precision_score(labels[:, column], scores[:, column])) <= 1e-12
    assert abs(result.mean_auc - metrics.roc_auc_score(labels, scores)) <= 1e-12


def test_a_weight_of_two_is_the_image_twice(case):
    scores, labels = case[0][:, 3], case[1][:, 3]
    weights = np.random.default_rng(1).integers(0, 4, (300, 5))
    for column, area in enumerate(roc_auc(scores, labels, weights)):
        repeated = np.repeat(np.arange(300), weights[:, column])
        assert area == pytest.approx(by_pairs(scores[repeated], labels[repeated]), abs=1e-12)


def test_intervals_are_those_of_resampled_patients(case):
    scores, labels, patients = case
    result = evaluate(FINDINGS, scores, labels, patients, resamples=200, seed=7)
    members = [np.flatnonzero(patients == number) for number in np.unique(patients)]
    rng, areas = np.random.default_rng(7), []
    for _ in range(200):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        areas.append([by_pairs(scores[rows, c], labels[rows, c]) for c in range(14)])
    low, high = np.percentile(areas, (2.5, 97.5), axis=0)
    np.testing.assert_allclose([area.low for area in result.findings.values()], low, atol=1e-12)
    np.testing.assert_allclose([area.high for area in result.findings.values()], high, atol=1e-12)
    np.testing.assert_allclose((result.low, result.high), np.percentile(np.mean(areas, 1), (2.5, 97.5)), atol=1e-12)
    assert (result.patients, result.mean_resamples) == (len(members), 200)


def test_images_of_a_patient_are_drawn_together(case):
    scores, labels, _ = case
    copies = np.tile(scores, (3, 1)), np.tile(labels, (3, 1))
    together = evaluate(FINDINGS, *copies, np.tile(np.arange(300), 3), resamples=100)
    single = evaluate(FINDINGS, scores, labels, np.arange(300), resamples=100)
    apart = evaluate(FINDINGS, *copies, np.arange(900), resamples=100)
    assert (together.low, together.high) == pytest.approx((single.low, single.high), abs=1e-12)
    assert apart.high - apart.low < 0.8 * (together.high - together.low)


def test_the_seed_decides(case):
    assert evaluate(FINDINGS, *case, resamples=60, seed=1) == evaluate(FINDINGS, *case, resamples=60, seed=1)
    assert evaluate(FINDINGS, *case, resamples=60, seed=1).low != evaluate(FINDINGS, *case, resamples=60, seed=2).low


@pytest.mark.parametrize("value", [False, True])
def test_a_finding_of_one_class_is_undefined_and_not_in_the_mean(case, value):
    scores, labels, patients = case
    labels = labels.copy()
    labels[:, 13] = value
    result = evaluate(FINDINGS, scores, labels, patients, resamples=20)
    content = to_json(result)
    assert content["findings"]["Hernia"] == {
        "auc": None, "low": None, "high": None, "auprc": None, "positives": 300 * value
    }  # fmt: skip
    assert content["mean_leaves_out"] == ["Hernia"]
    assert result.mean_auc == pytest.approx(np.mean([result.findings[name].auc for name in FINDINGS[:-1]]), abs=1e-12)
    assert f"| Hernia | {300 * value} | undefined |  |  |" in to_markdown(result)


def test_resamples_that_lose_a_finding_do_not_shift_the_mean(case):
    scores, labels, patients = case
    labels = labels.copy()
    labels[:, 13] = np.arange(300) == 5
    scores[5, 13] = 9  # AUC 1 whenever it is defined
    result = evaluate(FINDINGS, scores, labels, patients, resamples=200)
    assert 90 < result.mean_resamples < 160  # 1 - 1/e of them
    assert (result.findings["Hernia"].low, result.findings["Hernia"].high) == (1, 1)


def test_nothing_defined():
    result = evaluate(FINDINGS, np.zeros((3, 14)), np.zeros((3, 14)), np.arange(3), resamples=5)
    assert (result.mean_auc, result.low, result.mean_resamples) == (None, None, 0)
