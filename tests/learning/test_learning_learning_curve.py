import numpy as np
import pytest

from chestxray.inference.bundle import Calibration
from chestxray.inference.probability import sigmoid
from chestxray.learning import learning_curve as module
from chestxray.learning.learning_curve import Comparison, Step, better_from, learning_curve

OLD = Calibration(temperature=1, bias=0, fitted_on="elsewhere", n=0, prevalence=0.5)


def site(n: int, seed: int, *, shift: float = 0.0, prevalence_logit: float = 0.0):
    """Logits, truths and subjects (two radiographs each); ``OLD`` is right but for the shift."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, n)
    truth = random.random(n) < sigmoid(logits + prevalence_logit)
    return logits + shift, truth, np.arange(n) // 2


def curve_of(logits, truth, subject, **settings):
    return learning_curve(OLD, 0.5, "balanced", logits, truth, subject, **settings)


def compared(*, gain: float, better: float) -> Comparison:
    return Comparison(old=0.0, new=0.0, gain=gain, gain_sd=0.1, better=better)


def step(n: int, comparison: Comparison) -> Step:
    never = compared(gain=-1, better=0)
    return Step(n=n, n_subjects=n, n_draws=100, log_loss=comparison, youden=never)


def test_a_site_whose_logits_are_shifted_is_better_off_from_few_radiographs_on():
    for seed in range(3):
        pays = better_from(curve_of(*site(200, seed, shift=3)))
        assert pays == {"probabilities": 25, "decisions": 25}


def test_a_site_on_which_the_old_calibration_is_right_seldom_seems_to_be_better_off():
    found = [better_from(curve_of(*site(150, seed), n_draws=40)) for seed in range(10)]
    assert sum(pays["probabilities"] is not None for pays in found) <= 1
    assert sum(pays["decisions"] is not None for pays in found) <= 1


def test_the_curve_doubles_n_as_long_as_half_of_the_subjects_are_left_to_judge():
    curve = curve_of(*site(402, 0), n_draws=4)
    assert [(s["n"], s["n_subjects"]) for s in curve] == [(25, 12), (50, 25), (100, 50), (200, 100)]
    assert [s["n"] for s in curve_of(*site(398, 0), n_draws=4)] == [25, 50, 100]


def test_subjects_are_never_on_both_sides(monkeypatch):
    logits, truth, subject = site(200, 0)
    logits = subject.astype(float)  # every subject is known by its logit
    seen = []

    def update(old, fitted, *rest):
        seen.append(set(fitted))
        return original_update(old, fitted, *rest)

    def judge(calibration, threshold, judged, *rest):
        assert not seen[-1] & set(judged)
        assert seen[-1] | set(judged) == set(logits)
        return original_judge(calibration, threshold, judged, *rest)

    original_update, original_judge = module.update, module._judge
    monkeypatch.setattr(module, "update", update)
    monkeypatch.setattr(module, "_judge", judge)
    assert curve_of(logits, truth, subject, n_draws=10)
    assert len(seen) == 30


def test_the_same_site_gives_the_same_curve_and_another_seed_another():
    data = site(200, 1)
    assert curve_of(*data, n_draws=10) == curve_of(*data, n_draws=10)
    assert curve_of(*data, n_draws=10) != curve_of(*data, n_draws=10, seed=1)


def test_gains_are_those_of_new_over_old():
    for s in curve_of(*site(200, 2, shift=1), n_draws=20):
        for name, sign in (("log_loss", -1), ("youden", 1)):
            told = s[name]
            assert told["gain"] == pytest.approx(sign * (told["new"] - told["old"]))
            assert 0 <= told["better"] <= 1
            assert told["gain_sd"] > 0


def test_draws_that_lack_a_truth_are_left_out_and_counted():
    logits, _, subject = site(200, 3)
    first, *more = curve_of(logits, subject < 8, subject)  # 8 of 100 subjects, 12 are drawn
    assert first["n"] == 25
    assert 50 < first["n_draws"] < 80
    assert [s["n_draws"] for s in more] == sorted(s["n_draws"] for s in more)


def test_an_n_with_which_most_draws_lack_a_truth_is_left_out():
    logits, _, subject = site(200, 3)
    assert [s["n"] for s in curve_of(logits, subject < 3, subject)] == [50, 100]


@pytest.mark.parametrize("n", [2, 10, 49])
def test_a_site_too_small_to_be_halved_has_no_curve_and_is_not_better_off(n):
    logits, _, subject = site(n, 0)
    curve = curve_of(logits, np.arange(n) < n / 2, subject)
    assert curve == []
    assert better_from(curve) == {"probabilities": None, "decisions": None}


@pytest.mark.parametrize("n_positive", [1, 2, 5])
def test_few_positives_never_crash(n_positive):
    logits, _, subject = site(60, 0)
    for s in curve_of(logits, np.arange(60) < n_positive, subject):
        assert np.isfinite([s["log_loss"]["gain"], s["youden"]["gain"]]).all()


def test_one_subject_is_no_crash():
    logits, truth, _ = site(60, 0)
    assert curve_of(logits, truth, np.zeros(60, int)) == []


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([(1, 1.0), (1, 1.0), (1, 1.0)], 25),
        ([(1, 0.89), (1, 0.9), (1, 1.0)], 50),
        ([(1, 1.0), (1, 0.5), (1, 1.0)], 100),
        ([(1, 1.0), (1, 1.0), (1, 0.5)], None),
        ([(1, 1.0), (1, 1.0), (-1, 0.95)], None),
    ],
)
def test_better_from_is_the_least_n_from_which_on_it_stays_better(gains, expected):
    steps = [
        step(n, compared(gain=gain, better=better))
        for n, (gain, better) in zip((25, 50, 100), gains, strict=True)
    ]
    assert better_from(steps) == {"probabilities": expected, "decisions": None}
