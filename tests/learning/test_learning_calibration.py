import numpy as np
import pytest

from chestxray.inference.bundle import Calibration
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.calibration import fit_calibration, fit_operating_points

AS_IT_IS = Calibration(temperature=1, bias=0, fitted_on="a simulation", n=0, prevalence=0.5)


def simulated(
    n: int, seed: int, *, temperature: float = 1.0, bias: float = 0.0, spread: float = 3.0
):
    """Logits whose truths follow sigmoid(logit / temperature + bias)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, spread, n)
    truth = random.random(n) < sigmoid(logits / temperature + bias)
    return logits, truth


def shares(truth, probability, threshold) -> tuple[float, float]:
    """Sensitivity and specificity, counted."""
    positive = probability >= threshold
    return float(positive[truth].mean()), float((~positive)[~truth].mean())


@pytest.mark.parametrize(("temperature", "bias"), [(1, 0), (2.5, -0.7), (0.4, 1.2)])
def test_calibration_recovers_the_temperature_and_bias_that_made_the_truths(temperature, bias):
    logits, truth = simulated(
        100_000, 0, temperature=temperature, bias=bias, spread=3 * temperature
    )
    fitted = fit_calibration(logits, truth, "a simulation")
    assert fitted.temperature == pytest.approx(temperature, rel=0.03)
    assert fitted.bias == pytest.approx(bias, abs=0.04)


def test_calibration_says_on_what_it_was_fitted():
    logits, truth = simulated(500, 1)
    fitted = fit_calibration(logits, truth, "a simulation")
    assert (fitted.fitted_on, fitted.n) == ("a simulation", 500)
    assert fitted.prevalence == truth.mean()


def test_calibrated_probabilities_have_the_prevalence_as_their_mean():
    logits, truth = simulated(5_000, 2, temperature=3, bias=1)
    fitted = fit_calibration(logits, truth, "a simulation")
    assert sigmoid(calibrated_logit(logits, fitted)).mean() == pytest.approx(truth.mean(), abs=2e-3)


@pytest.mark.parametrize("scale", [0.01, 1, 50, 1000])
def test_calibration_is_finite_where_a_threshold_parts_the_truths_without_error(scale):
    logits = scale * np.array([-2.0, -1.5, -1.0, 1.0, 1.5, 2.0])
    truth = logits > 0
    fitted = fit_calibration(logits, truth, "a simulation")
    probability = sigmoid(calibrated_logit(logits, fitted))
    assert np.isfinite([fitted.temperature, fitted.bias]).all()
    # Platt's targets: with three of each, no probability should go beyond 4/5 by much.
    assert 0.6 < probability[truth].min() <= probability[truth].max() < 0.95


def test_calibration_does_not_depend_on_the_order_or_scale_of_the_logits():
    logits, truth = simulated(1_000, 3)
    order = np.random.default_rng(0).permutation(1_000)
    one = fit_calibration(logits, truth, "a simulation")
    shuffled = fit_calibration(logits[order], truth[order], "a simulation")
    scaled = fit_calibration(10 * logits, truth, "a simulation")
    assert shuffled.temperature == pytest.approx(one.temperature, rel=1e-6)
    assert scaled.temperature == pytest.approx(10 * one.temperature, rel=1e-4)
    assert scaled.bias == pytest.approx(one.bias, abs=1e-4)


def test_truths_that_contradict_the_logits_do_not_turn_them_round():
    logits, truth = simulated(1_000, 4)
    fitted = fit_calibration(logits, ~truth, "a simulation")
    assert 0 < fitted.temperature < np.inf
    assert np.isfinite(fitted.bias)


def cases():
    yield "many", *simulated(2_000, 10)
    yield "few", *simulated(40, 11)
    yield "overlapping", *simulated(500, 12, spread=0.5)
    yield "rare", *simulated(3_000, 13, bias=-4)
    logits, truth = simulated(600, 14)
    yield "tied", np.round(logits), truth
    yield "all tied", np.zeros(20), np.arange(20) < 10
    yield "separable", np.arange(-10.0, 10.0), np.arange(-10, 10) >= 0
    yield "contradicted", np.arange(-10.0, 10.0), np.arange(-10, 10) < 0
    yield "saturated", np.repeat([-900.0, 900.0], 30), np.arange(60) >= 30


@pytest.mark.parametrize(
    ("logits", "truth"), [pytest.param(*case[1:], id=case[0]) for case in cases()]
)
def test_operating_points_obey_their_rules(logits, truth):
    probability = sigmoid(logits)
    points = fit_operating_points(logits, truth, AS_IT_IS, n_independent=len(logits))
    screening, balanced, rule_in = (
        points[n].threshold for n in ("screening", "balanced", "rule_in")
    )
    assert 0 <= screening <= balanced <= rule_in <= 1

    at = {t: shares(truth, probability, t) for t in np.unique(probability)}
    youden = {t: sensitivity + specificity - 1 for t, (sensitivity, specificity) in at.items()}
    best = max(youden, key=lambda t: (youden[t], -t))
    error = np.sqrt(
        at[best][0] * (1 - at[best][0]) / truth.sum()
        + at[best][1] * (1 - at[best][1]) / (~truth).sum()
    )
    as_good = [t for t in at if youden[t] >= youden[best] - error - 1e-12]
    floor = min(0.97, at[best][0])
    assert balanced == max(t for t in as_good if at[t][0] >= floor - 1e-12)

    assert shares(truth, probability, screening)[0] >= 0.99
    assert screening == min(max(t for t in at if at[t][0] >= 0.99), balanced)

    specific = [t for t in at if at[t][1] >= 0.99]
    assert rule_in == max(min(specific, default=1.0), balanced)
    if specific:
        assert shares(truth, probability, rule_in)[1] >= 0.99


def test_no_specific_threshold_leaves_rule_in_at_certainty():
    logits, truth = np.arange(-10.0, 10.0), np.arange(-10, 10) < 0  # all wrong
    assert fit_operating_points(logits, truth, AS_IT_IS, 20)["rule_in"].threshold == 1


def test_copies_of_few_radiographs_leave_balanced_more_room_upwards():
    logits, truth = simulated(2_000, 20, spread=40)
    alone = fit_operating_points(logits, truth, AS_IT_IS, n_independent=2_000)
    copies = fit_operating_points(logits, truth, AS_IT_IS, n_independent=100)
    assert copies["balanced"].threshold > alone["balanced"].threshold


def test_a_weight_counts_as_so_many_radiographs():
    logits, truth = simulated(20_000, 23)
    times = np.random.default_rng(0).integers(1, 4, 20_000)
    many = np.repeat(logits, times), np.repeat(truth, times)
    weights = times / times.mean()
    weighted = fit_calibration(logits, truth, "a simulation", weights)
    repeated = fit_calibration(*many, "a simulation")
    assert weighted.temperature == pytest.approx(repeated.temperature, rel=0.01)  # smoothing's n
    assert weighted.bias == pytest.approx(repeated.bias, abs=0.02)
    assert weighted.prevalence == pytest.approx(repeated.prevalence)
    surely = 10**12  # so many that no standard error is left
    points = fit_operating_points(logits, truth, AS_IT_IS, surely, weights)
    expected = fit_operating_points(*many, AS_IT_IS, surely)
    for name, point in points.items():
        assert point.threshold == expected[name].threshold, name


def test_thresholds_lie_on_calibrated_probabilities():
    logits, truth = simulated(500, 21)
    calibration = Calibration(temperature=2, bias=-0.5, fitted_on="x", n=0, prevalence=0.5)
    plain = fit_operating_points(logits, truth, AS_IT_IS, 500)
    calibrated = fit_operating_points(logits, truth, calibration, 500)
    for name, point in plain.items():
        logit = np.log(point.threshold) - np.log1p(-point.threshold)
        expected = sigmoid(logit / 2 - 0.5)
        assert calibrated[name].threshold == pytest.approx(float(expected), rel=1e-6)


def test_every_rule_says_on_what_it_was_fitted():
    logits, truth = simulated(500, 22)
    for point in fit_operating_points(logits, truth, AS_IT_IS, 500).values():
        assert point.rule.endswith("on a simulation")


def test_balanced_serves_the_source_that_it_serves_worst():
    easy, hard = np.linspace(-4, 4, 2_000), np.linspace(-4, 4, 200)
    logits = np.concatenate([easy, hard - 1.5])  # as in the one, but all of it lower
    truth = np.concatenate([easy > 0, hard > 0])
    sources = np.repeat(["here", "there"], [len(easy), len(hard)])
    together = fit_operating_points(logits, truth, AS_IT_IS, len(logits))
    served = fit_operating_points(logits, truth, AS_IT_IS, len(logits), sources=sources)
    assert together["balanced"].threshold == pytest.approx(0.5, abs=0.02)
    # Midway: as many errors here as there.
    assert served["balanced"].threshold == pytest.approx(sigmoid(-0.75), abs=0.02)
    assert "in the source that it serves worst" in served["balanced"].rule
    one_sided = np.where(truth & (sources == "there"), "elsewhere", sources)
    assert fit_operating_points(logits, truth, AS_IT_IS, len(logits), sources=one_sided) == together
