"""From how many of its own radiographs on is a site better off recalibrating? Its data answers.

Again and again some of the site's subjects play the site that labelled n radiographs, and the rest
play its future: calibration and operating points are updated on the first, and old and new are
judged on the second. The comparison is paired, since both are judged on the same radiographs.

Does not: run a network; logits are computed once. Nor judge the fit to *all* the radiographs, for
which nobody is left; at least half of the subjects always judge.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from chestxray.evaluation.metrics import sensitivity, specificity
from chestxray.inference.bundle import Calibration
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.calibration import Bools, Floats
from chestxray.learning.updating import update

Judgement = tuple[float, float]
"""Log loss and Youden index."""

SMALLEST_N = 25
N_DRAWS = 100
SHARE_BETTER = 0.9
RULE = (
    f"the least n from which on, at every n tried, recalibrating was better on average and in at "
    f"least {SHARE_BETTER:.0%} of up to {N_DRAWS} draws of subjects"
)
"""A share and not the mean alone, since a site recalibrates once, and must not need luck. Draws
share radiographs, so the share is no significance level; where the old calibration was right,
simulated sites seldom reach it (``tests/learning/test_learning_learning_curve.py``)."""


class Comparison(TypedDict):
    """A figure with the old and with the updated bundle, means over draws.

    ``gain`` is the mean paired difference, positive where updating is better, ``gain_sd`` its
    standard deviation over draws, ``better`` the share of draws with a gain; a tie is none.
    """

    old: float
    new: float
    gain: float
    gain_sd: float
    better: float


class Step(TypedDict):
    """One point of the curve: ``n`` radiographs, the mean over draws of ``n_subjects`` subjects.

    ``log_loss`` judges probabilities, ``youden`` decisions at the default operating point.
    """

    n: int
    n_subjects: int
    n_draws: int
    log_loss: Comparison
    youden: Comparison


class BetterFrom(TypedDict):
    """The n of ``RULE``, or None where no n was enough."""

    probabilities: int | None
    decisions: int | None


def learning_curve(
    old: Calibration,
    threshold: float,
    operating_point: str,
    logits: Floats,
    truth: Bools,
    subject: NDArray[np.integer],
    *,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> list[Step]:
    """Old against updated on other subjects, for n = 25, 50, 100, … up to half of the subjects.

    ``logits``, ``truth`` and ``subject`` are (N,); radiographs of one ``subject`` stay together.
    ``threshold`` is the old one of ``operating_point``. Draws in which a side lacks a truth are
    left out, and so is an n with which that happens in most of them; the curve may be empty.
    """
    _, subject = np.unique(subject, return_inverse=True)
    n_all = int(subject.max()) + 1

    def judge(fitting: Bools) -> tuple[Judgement, Judgement]:
        """The old and the updated bundle on the radiographs that were not fitted to."""
        calibration, points = update(old, logits[fitting], truth[fitting], "a draw")
        rest = logits[~fitting], truth[~fitting]
        new_threshold = points[operating_point].threshold
        return _judge(old, threshold, *rest), _judge(calibration, new_threshold, *rest)

    steps: list[Step] = []
    n = SMALLEST_N
    while (n_subjects := max(1, round(n * n_all / len(logits)))) <= n_all // 2:
        random = np.random.default_rng((seed, n))
        draws = [np.isin(subject, random.permutation(n_all)[:n_subjects]) for _ in range(n_draws)]
        judged = [judge(d) for d in draws if _has_both(truth[d]) and _has_both(truth[~d])]
        if len(judged) > n_draws / 2:
            log_loss, youden = np.array(judged).transpose(2, 1, 0)
            steps.append(
                Step(
                    n=n,
                    n_subjects=n_subjects,
                    n_draws=len(judged),
                    log_loss=_compare(*log_loss, higher_is_better=False),
                    youden=_compare(*youden, higher_is_better=True),
                )
            )
        n *= 2
    return steps


def better_from(curve: list[Step]) -> BetterFrom:
    """What ``RULE`` says of a curve."""
    return BetterFrom(
        probabilities=_first_to_stay_better([(s["n"], s["log_loss"]) for s in curve]),
        decisions=_first_to_stay_better([(s["n"], s["youden"]) for s in curve]),
    )


def _first_to_stay_better(compared: list[tuple[int, Comparison]]) -> int | None:
    first = None
    for n, comparison in reversed(compared):
        if comparison["gain"] <= 0 or comparison["better"] < SHARE_BETTER:
            break
        first = n
    return first


def _has_both(truth: Bools) -> bool:
    return bool(truth.any() and not truth.all())


def _judge(calibration: Calibration, threshold: float, logits: Floats, truth: Bools) -> Judgement:
    z = calibrated_logit(logits, calibration)
    positive = sigmoid(z) >= threshold
    log_loss = np.mean(np.logaddexp(0, z) - truth * z)
    youden = sensitivity(truth, positive) + specificity(truth, positive) - 1
    return float(log_loss), float(youden)


def _compare(old: Floats, new: Floats, *, higher_is_better: bool) -> Comparison:
    gain = new - old if higher_is_better else old - new
    return Comparison(
        old=float(old.mean()),
        new=float(new.mean()),
        gain=float(gain.mean()),
        gain_sd=float(gain.std()),
        better=float((gain > 0).mean()),
    )
