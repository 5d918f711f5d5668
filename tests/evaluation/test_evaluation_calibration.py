"""Slope and intercept say how a logit would have to be changed, where that has an answer."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from chestxray.evaluation.calibration import calibration_of, recalibration
from chestxray.inference.probability import sigmoid

NOTHING = {"value": None, "ci_low": None, "ci_high": None}


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits, truths that are drawn as they say, and subjects of two radiographs each."""
    random = np.random.default_rng(0)
    logit = random.normal(-0.5, 2, 3000)
    return logit, random.random(3000) < sigmoid(logit), [f"{i // 2}" for i in range(3000)]


def test_probabilities_that_mean_what_they_say_have_slope_1_intercept_0_and_ratio_1(drawn):
    logit, truth, subjects = drawn
    found = calibration_of(truth, sigmoid(logit), subjects)
    for name, ideal in (("slope", 1), ("intercept", 0), ("observed_expected", 1)):
        assert found[name]["ci_low"] < ideal < found[name]["ci_high"]
        assert found[name]["value"] == pytest.approx(ideal, abs=0.1)


def test_logits_twice_too_large_halve_the_slope(drawn):
    logit, truth, subjects = drawn
    once, twice = (calibration_of(truth, sigmoid(n * logit), subjects) for n in (1, 2))
    assert twice["slope"]["value"] == pytest.approx(once["slope"]["value"] / 2)
    assert twice["intercept"]["value"] == pytest.approx(once["intercept"]["value"])


def test_logits_shifted_up_are_shifted_back_by_the_intercept(drawn):
    logit, truth, subjects = drawn
    found = calibration_of(truth, sigmoid(logit + 1), subjects)
    plain = calibration_of(truth, sigmoid(logit), subjects)
    back = plain["intercept"]["value"] - plain["slope"]["value"]
    assert found["intercept"]["value"] == pytest.approx(back)
    assert found["observed_expected"]["value"] < 0.95


def test_it_is_the_maximum_of_the_likelihood(drawn):
    logit, truth, _ = drawn
    weights = np.random.default_rng(1).integers(0, 4, (3, len(truth))).astype(float)
    intercept, slope = recalibration(truth, logit, weights)
    for replicate in range(3):
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(
            logit[:, np.newaxis], truth, weights[replicate]
        )
        assert slope[replicate] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
        assert intercept[replicate] == pytest.approx(fitted.intercept_[0], abs=1e-4)


@pytest.mark.parametrize(
    ("truth", "probability"),
    [
        ([False, False, True, True], [0.1, 0.2, 0.8, 0.9]),
        ([True, True, False, False], [0.1, 0.2, 0.8, 0.9]),
        ([False, False, True, True], [0.1, 0.5, 0.5, 0.9]),
        ([False, True, False, True], [0.5, 0.5, 0.5, 0.5]),
        ([True, True, True, True], [0.1, 0.2, 0.8, 0.9]),
        ([False, True], [0.0, 1.0]),
    ],
)
def test_where_a_threshold_parts_the_truths_no_slope_fits_best(truth, probability):
    truth, probability = np.array(truth), np.array(probability)
    found = calibration_of(truth, probability, [str(i) for i in range(len(truth))])
    assert (found["slope"], found["intercept"]) == (NOTHING, NOTHING)
    assert found["observed_expected"]["value"] == truth.sum() / probability.sum()


def test_where_many_replicates_are_parted_there_is_no_interval_and_so_no_figure():
    truth = np.array([False, False, True, False, True, True])  # one pair is the wrong way round
    found = calibration_of(truth, np.linspace(0.1, 0.9, 6), [str(i) for i in range(6)])
    assert found["slope"] == NOTHING


def test_certainty_itself_is_no_reason_to_fail(drawn):
    logit, truth, subjects = drawn
    probability = sigmoid(logit)
    probability[:2] = 0, 1
    found = calibration_of(truth, probability, subjects)
    assert all(np.isfinite(figure["value"]) for figure in found.values())
