import numpy as np
import pytest
from sklearn import metrics as reference

from chestxray.evaluation.metrics import (
    accuracy,
    auroc,
    brier,
    ece,
    figures,
    negative_predictive_value,
    positive_predictive_value,
    precision,
    resampled,
    sensitivity,
    specificity,
    subject_draws,
)

NAMES = ("auroc", "accuracy", "sensitivity", "specificity", "precision", "brier", "ece")


def simulated(n: int = 400, seed: int = 0, *, ties: bool = False):
    """Truths, probabilities and weights that have nothing special about them."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.6
    probability = 1 / (1 + np.exp(-random.normal(np.where(truth, 1.0, -1.0), 1.5)))
    if ties:
        probability = np.round(probability, 1)
    weights = random.integers(0, 4, n).astype(float)
    return truth, probability, weights


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_auroc_is_that_of_scikit_learn_with_ties_and_weights(ties, weighted):
    truth, probability, weights = simulated(ties=ties)
    weights = weights if weighted else None
    expected = reference.roc_auc_score(truth, probability, sample_weight=weights)
    assert auroc(truth, probability, weights) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_scores_that_are_all_equal_is_a_half():
    assert auroc(np.array([True, False, True]), np.full(3, 0.7)) == 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_at_a_threshold_are_those_of_scikit_learn(weighted):
    truth, probability, weights = simulated()
    weights = weights if weighted else None
    label = probability >= 0.7
    same = {"sample_weight": weights}
    assert accuracy(truth, label, weights) == pytest.approx(
        reference.accuracy_score(truth, label, **same)
    )
    assert sensitivity(truth, label, weights) == pytest.approx(
        reference.recall_score(truth, label, **same)
    )
    assert specificity(truth, label, weights) == pytest.approx(
        reference.recall_score(truth, label, pos_label=False, **same)
    )
    assert precision(truth, label, weights) == pytest.approx(
        reference.precision_score(truth, label, **same)
    )
    assert brier(truth, probability, weights) == pytest.approx(
        reference.brier_score_loss(truth, probability, **same)
    )


def test_a_weight_counts_as_that_many_radiographs():
    truth, probability, weights = simulated(100)
    times = weights.astype(int)
    repeated = np.repeat(truth, times), np.repeat(probability, times)
    for figure in (auroc, brier, ece):
        assert figure(truth, probability, weights) == pytest.approx(figure(*repeated))
    label, repeated_label = probability >= 0.5, repeated[1] >= 0.5
    for figure in (accuracy, sensitivity, specificity, precision):
        assert figure(truth, label, weights) == pytest.approx(figure(repeated[0], repeated_label))


def test_many_weights_at_once_give_what_each_gives_alone():
    truth, probability, _ = simulated(60, ties=True)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
    weights[0] = 0
    label = probability >= 0.5
    for figure, answer in (
        *((f, probability) for f in (auroc, brier, ece)),
        *((f, label) for f in (accuracy, sensitivity, specificity, precision)),
    ):
        alone = [figure(truth, answer, w) for w in weights]
        assert np.isnan(alone[0])
        assert figure(truth, answer, weights) == pytest.approx(alone, nan_ok=True)


def test_predictive_values_are_those_of_bayes_by_hand():
    # Of 1000 people 100 have it: 90 found, 10 missed; of 900 without, 180 labelled all the same.
    assert positive_predictive_value(0.9, 0.8, 0.1) == pytest.approx(90 / (90 + 180))
    assert negative_predictive_value(0.9, 0.8, 0.1) == pytest.approx(720 / (720 + 10))


def test_the_ppv_at_the_prevalence_of_the_data_is_the_precision():
    truth, probability, _ = simulated()
    label = probability >= 0.7
    found = sensitivity(truth, label), specificity(truth, label)
    assert positive_predictive_value(*found, truth.mean()) == pytest.approx(precision(truth, label))


def test_predictive_values_of_labels_that_nobody_gets_are_nan():
    assert np.isnan(positive_predictive_value(0.0, 1.0, 0.3))
    assert np.isnan(negative_predictive_value(1.0, 0.0, 0.3))


def test_figures_resampled_with_the_same_subjects_saw_the_same_draws():
    truth, probability, _ = simulated(50)
    subjects = [str(i // 2) for i in range(50)]
    whole = resampled(truth, probability, 0.5, subjects, n_replicates=20)
    draws = subject_draws(subjects, 20, seed=0)
    for weights, drawn in zip(draws, whole["brier"].draws, strict=True):
        assert drawn == pytest.approx(brier(truth, probability, weights))


def test_ece_is_the_weighted_gap_of_fifteen_equal_bins():
    # Bin 1 of 15 holds 0.1 (one of two is true), bin 13 holds 0.9 (both are), the last holds 1.
    truth = np.array([True, False, True, True, False])
    probability = np.array([0.1, 0.1, 0.9, 0.9, 1.0])
    by_hand = 2 / 5 * abs(0.1 - 0.5) + 2 / 5 * abs(0.9 - 1.0) + 1 / 5 * abs(1.0 - 0.0)
    assert ece(truth, probability) == pytest.approx(by_hand)


def test_ece_parts_probabilities_on_the_two_sides_of_a_bin_edge():
    truth = np.array([True, False])
    just_apart = np.array([1 / 15 - 1e-6, 1 / 15 + 1e-6])
    together = np.array([1 / 15 + 1e-6, 1 / 15 + 2e-6])
    assert ece(truth, just_apart) == pytest.approx((14 / 15 + 1 / 15) / 2, abs=1e-5)
    assert ece(truth, together) == pytest.approx(0.5 - 1 / 15, abs=1e-5)


def test_figures_have_the_value_of_the_whole_and_an_interval_around_it():
    truth, probability, _ = simulated()
    got = figures(truth, probability, 0.5, [str(i) for i in range(len(truth))], n_replicates=200)
    assert set(got) == set(NAMES)
    assert got["auroc"]["value"] == auroc(truth, probability)
    assert got["sensitivity"]["value"] == sensitivity(truth, probability >= 0.5)
    for name, figure in got.items():
        if name != "ece":  # resampled, its noise adds up: the value may lie below the interval
            assert figure["ci_low"] < figure["value"] < figure["ci_high"], name


def test_a_probability_at_the_threshold_counts_as_pneumonia():
    truth, probability = np.array([True, True, False]), np.array([0.5, 0.9, 0.1])
    got = figures(truth, probability, 0.5, ["a", "b", "c"], n_replicates=10)
    assert got["sensitivity"]["value"] == 1


def test_the_interval_of_independent_radiographs_is_the_binomial_one():
    truth = np.ones(400, dtype=bool)
    truth[:40] = False
    probability = np.where(np.arange(400) % 4 == 0, 0.1, 0.9)  # 3 of 4 are labelled PNEUMONIA
    got = figures(truth, probability, 0.5, [str(i) for i in range(400)])["sensitivity"]
    half_width = 1.96 * np.sqrt(0.75 * 0.25 / 360)
    assert got["ci_high"] - got["ci_low"] == pytest.approx(2 * half_width, rel=0.1)


def test_the_interval_widens_when_the_radiographs_are_of_few_subjects():
    random = np.random.default_rng(0)
    child = np.repeat(np.arange(40), 10)
    truth = child % 2 == 0
    wrong = random.random(40) < 0.3  # the network errs by child
    probability = np.where(truth ^ wrong[child], 0.9, 0.1)
    widths = {}
    for name, subjects in (("radiographs", np.arange(400)), ("children", child)):
        figure = figures(truth, probability, 0.5, [str(s) for s in subjects])["accuracy"]
        widths[name] = figure["ci_high"] - figure["ci_low"]
    assert widths["children"] == pytest.approx(np.sqrt(10) * widths["radiographs"], rel=0.2)


def test_a_replicate_draws_whole_subjects_as_often_as_there_are_subjects():
    subjects = ["a", "b", "a", "c", "b", "a"]
    for weights in subject_draws(subjects, 50, seed=3):
        of_subject = {
            s: {w for t, w in zip(subjects, weights, strict=True) if t == s} for s in "abc"
        }
        assert all(len(counts) == 1 for counts in of_subject.values())
        assert sum(next(iter(counts)) for counts in of_subject.values()) == 3


def test_figures_are_the_same_every_time():
    truth, probability, _ = simulated(100)
    subjects = [str(i // 3) for i in range(100)]
    first, second = (figures(truth, probability, 0.5, subjects, n_replicates=50) for _ in range(2))
    assert first == second
    assert first != figures(truth, probability, 0.5, subjects, n_replicates=50, seed=1)


def test_a_figure_without_denominator_is_none():
    truth, probability = np.array([True, True, False]), np.array([0.2, 0.3, 0.1])
    got = figures(truth, probability, 0.9, ["a", "b", "c"], n_replicates=50)
    assert got["precision"] == {"value": None, "ci_low": None, "ci_high": None}
    assert got["sensitivity"]["value"] == 0


def test_replicates_without_a_truth_do_not_spoil_the_interval():
    truth, probability = np.array([True, False]), np.array([0.9, 0.1])
    got = figures(truth, probability, 0.5, ["a", "b"], n_replicates=100)
    assert got["auroc"] == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0}


def test_figures_of_one_truth_alone_leave_out_what_needs_the_other():
    truth, probability = np.ones(4, dtype=bool), np.array([0.2, 0.6, 0.7, 0.8])
    got = figures(truth, probability, 0.5, list("abcd"), n_replicates=50)
    assert got["auroc"]["value"] is None
    assert got["specificity"]["value"] is None
    assert got["sensitivity"]["value"] == 0.75
