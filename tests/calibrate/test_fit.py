import numpy as np
import pytest

from cxr_trt.calibrate.fit import (
    Platt,
    ThresholdGoal,
    choose_threshold,
    fit_isotonic,
    fit_platt,
    logit,
    why_not_fit,
)


def case(images=400, share=0.2, seed=0):
    """Scores that rise with the finding but are far too high, in steps, so that some are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.random(images) < share
    scores = 1 / (1 + np.exp(-np.round(rng.normal(1 + 1.2 * labels, 1), 1)))
    return scores.astype(np.float32).astype(np.float64), labels


@pytest.mark.parametrize(("images", "share"), [(400, 0.2), (60, 0.5), (3000, 0.01)])
def test_platt_is_scikit_learns_regression_on_platts_targets(images, share):
    linear = pytest.importorskip("sklearn.linear_model", reason="needs pip install scikit-learn")
    scores, labels = case(images, share)
    positives = int(labels.sum())
    high, low = (positives + 1) / (positives + 2), 1 / (images - positives + 2)
    shares = np.where(labels, high, low)  # a soft target is the image twice, as positive and as negative
    model = linear.LogisticRegression(C=np.inf, tol=1e-12, max_iter=10000)
    variable = np.tile(logit(scores), 2)[:, None]
    model.fit(variable, np.repeat([1, 0], images), sample_weight=np.concatenate([shares, 1 - shares]))
    fitted = fit_platt(scores, labels)
    assert fitted.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(model.intercept_[0], rel=1e-4)
    np.testing.assert_allclose(fitted(scores), model.predict_proba(variable[:images])[:, 1], atol=1e-6)


def test_platt_of_separated_scores_is_finite_and_of_extreme_scores_too():
    labels = np.arange(40) >= 25
    fitted = fit_platt(np.where(labels, 1.0, 0.0), labels)
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    np.testing.assert_allclose(fitted(np.array([0.0, 1.0])), [1 / 27, 16 / 17], atol=1e-6)


def test_the_fit_gives_back_what_distorted_the_scores():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000)
    labels = rng.random(200_000) < truth
    fitted = fit_platt(Platt(0.5, 2.0)(truth), labels)
    assert (fitted.slope, fitted.intercept) == pytest.approx((2, -4), abs=0.1)


def test_isotonic_is_scikit_learns():
    isotonic = pytest.importorskip("sklearn.isotonic", reason="needs pip install scikit-learn")
    scores, labels = case()
    fitted = fit_isotonic(scores, labels)
    model = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    at = np.concatenate([scores, np.linspace(0, 1, 1001)])
    np.testing.assert_allclose(fitted(at), model.predict(at), atol=1e-6)
    assert (np.diff(fitted(np.sort(scores))) >= 0).all()


def test_isotonic_by_hand():
    fitted = fit_isotonic(np.array([0.1, 0.2, 0.3, 0.4, 0.4]), np.array([False, True, False, True, True]))
    assert (fitted.scores, fitted.probabilities) == ((0.1, 0.2, 0.3, 0.4), (0.0, 0.5, 0.5, 1.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("value", [0.0, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_thresholds_by_trying_all(seed, value):
    scores, labels = case(80, 0.3, seed)
    scores = scores.astype(np.float32)
    rates = {t: ((scores >= t)[labels].mean(), (scores < t)[~labels].mean()) for t in (*np.unique(scores), 2)}
    sensitive = choose_threshold(scores, labels, ThresholdGoal("sensitivity", value))
    assert sensitive.sensitivity >= value
    assert sensitive.specificity == max(rejected for found, rejected in rates.values() if found >= value)
    specific = choose_threshold(scores, labels, ThresholdGoal("specificity", value))
    assert specific.specificity >= value
    assert specific.sensitivity == max(found for found, rejected in rates.values() if rejected >= value)
    youden = choose_threshold(scores, labels, ThresholdGoal("youden"))
    assert sum(youden[1:]) == pytest.approx(max(map(sum, rates.values())))
    for chosen in (sensitive, specific, youden):
        called = scores >= np.float32(chosen.score)
        assert (called[labels].mean(), (~called)[~labels].mean()) == chosen[1:]


def test_nothing_is_fitted_where_nothing_can_be_said():
    rng = np.random.default_rng(0)
    scores = rng.random(100)
    assert why_not_fit(scores, np.arange(100) < 9) == "9 positives, and a fit needs 10"
    assert why_not_fit(scores, np.arange(100) >= 9) == "9 negatives, and a fit needs 10"
    assert why_not_fit(np.full(100, 0.3), np.arange(100) < 50) == "all scores are equal"
    assert "do not rise with the finding" in why_not_fit(scores, scores < 0.5)
    assert why_not_fit(scores, scores > 0.5) is None
