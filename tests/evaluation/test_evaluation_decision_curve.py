import numpy as np
import pytest

from chestxray.evaluation.decision_curve import THRESHOLDS, decision_curve

TRUTH = np.array([True] * 4 + [False] * 6)
SUBJECTS = [str(i) for i in range(10)]


def at(rows: list[dict], threshold: float) -> dict:
    return next(row for row in rows if row["threshold"] == threshold)


def test_it_is_judged_at_thresholds_from_0_05_to_0_95():
    rows = decision_curve(TRUTH, np.full(10, 0.5), SUBJECTS)
    assert [row["threshold"] for row in rows] == list(THRESHOLDS)
    assert (THRESHOLDS[0], THRESHOLDS[-1], len(THRESHOLDS)) == (0.05, 0.95, 19)


def test_true_positives_count_and_false_positives_cost_their_odds():
    probability = np.array([0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])
    row = at(decision_curve(TRUTH, probability, SUBJECTS), 0.2)
    assert row["net_benefit"]["value"] == pytest.approx(3 / 10 - 2 / 10 * 0.2 / 0.8)
    assert row["treat_all"]["value"] == pytest.approx(4 / 10 - 6 / 10 * 0.2 / 0.8)
    assert row["treat_none"] == 0
    assert row["gain"]["value"] == pytest.approx(0.25 - 0.25)


def test_who_has_the_threshold_itself_is_acted_on():
    row = at(decision_curve(TRUTH, np.full(10, 0.25), SUBJECTS), 0.25)
    assert row["net_benefit"] == row["treat_all"]


def test_answers_without_an_error_gain_the_prevalence_over_none_everywhere():
    for row in decision_curve(TRUTH, TRUTH.astype(float), SUBJECTS):
        assert row["net_benefit"]["value"] == pytest.approx(0.4)
        assert row["gain"]["ci_low"] >= 0


def test_the_gain_is_over_the_better_of_all_and_none():
    for row in decision_curve(TRUTH, np.linspace(0, 1, 10), SUBJECTS):
        better = max(row["treat_all"]["value"], row["treat_none"])
        assert row["gain"]["value"] == pytest.approx(row["net_benefit"]["value"] - better)
