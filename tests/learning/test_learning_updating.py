import numpy as np
import pytest

from chestxray.inference.bundle import Calibration
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.updating import update, update_calibration

OLD = Calibration(temperature=2, bias=-0.5, fitted_on="elsewhere", n=0, prevalence=0.5)


def simulated(n: int, seed: int, *, slope: float = 1.0, intercept: float = 0.0):
    """A site where ``OLD`` has a calibration slope and intercept."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 6, n)
    truth = random.random(n) < sigmoid(slope * calibrated_logit(logits, OLD) + intercept)
    return logits, truth


def slope_and_intercept(new: Calibration) -> tuple[float, float]:
    slope = OLD.temperature / new.temperature
    return slope, new.bias - slope * OLD.bias


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.4, 0), (1.6, 0), (1, -4), (0.6, 3)])
def test_many_radiographs_outweigh_the_prior(slope, intercept):
    new = update_calibration(OLD, *simulated(50_000, 0, slope=slope, intercept=intercept), "x")
    assert slope_and_intercept(new) == pytest.approx((slope, intercept), abs=0.08)


def test_few_radiographs_stay_close_to_the_old_calibration():
    for seed in range(20):
        slope, intercept = slope_and_intercept(update_calibration(OLD, *simulated(15, seed), "x"))
        assert 0.5 < slope < 1.5
        assert abs(intercept) < 1.7


def test_few_radiographs_show_a_shift_before_they_show_a_slope():
    new = update_calibration(OLD, *simulated(40, 1, slope=0.3, intercept=-3), "x")
    slope, intercept = slope_and_intercept(new)
    assert intercept < -1
    assert slope > 0.3


def test_the_fit_is_stationary():
    logits, truth = simulated(60, 2, intercept=2)
    slope, intercept = slope_and_intercept(update_calibration(OLD, logits, truth, "x"))
    z = calibrated_logit(logits, OLD)

    def loss(a: float, b: float) -> float:
        w = a * z + b
        return float(np.sum(np.logaddexp(0, w) - truth * w) + (a - 1) ** 2 * 8 + b**2 / 2)

    for da, db in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        assert loss(slope + da, intercept + db) > loss(slope, intercept)


def cases():
    for n in (2, 25):
        logits = np.linspace(-4, 4, n)
        yield f"separable {n}", logits, logits > 0
        yield f"contradicted {n}", logits, logits < 0
    yield "five of 25 positive", np.random.default_rng(0).normal(0, 5, 25), np.arange(25) < 5
    yield "one of 25 positive", np.random.default_rng(1).normal(0, 5, 25), np.arange(25) < 1
    yield "all tied", np.zeros(25), np.arange(25) < 5
    yield "saturated", np.repeat([-2000.0, 2000.0], 10), np.arange(20) >= 10
    yield "saturated and wrong", np.repeat([-2000.0, 2000.0], 10), np.arange(20) < 10


@pytest.mark.parametrize(
    ("logits", "truth"), [pytest.param(*case[1:], id=case[0]) for case in cases()]
)
def test_however_few_and_odd_the_radiographs_calibration_and_points_make_sense(logits, truth):
    calibration, points = update(OLD, logits, truth, "a small site")
    assert 0 < calibration.temperature < np.inf
    assert np.isfinite(calibration.bias)
    thresholds = [points[name].threshold for name in ("screening", "balanced", "rule_in")]
    assert 0 <= thresholds[0] <= thresholds[1] <= thresholds[2] <= 1
    assert (calibration.fitted_on, calibration.n) == ("a small site", len(logits))
    assert calibration.prevalence == truth.mean()
