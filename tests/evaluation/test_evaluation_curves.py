import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from chestxray.evaluation.curves import MAX_POINTS, curves
from chestxray.evaluation.metrics import ece


def simulated(n: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n)
    truth = random.random(n) < 0.6
    probability = 1 / (1 + np.exp(-random.normal(np.where(truth, 1.0, -1.0), 1.5)))
    return truth, np.round(probability, 1) if ties else probability


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_curve_is_that_of_scikit_learn(ties):
    truth, probability = simulated(200, ties=ties)
    points = np.array(curves(truth, probability)["roc"])
    all_x, all_y, _ = reference.roc_curve(truth, probability, drop_intermediate=False)
    everywhere = set(zip(all_x.tolist(), all_y.tolist(), strict=True))
    assert {tuple(p) for p in points.tolist()} <= everywhere
    assert (tuple(points[0]), tuple(points[-1])) == ((0, 0), (1, 1))
    area = reference.auc(points[:, 0], points[:, 1])
    assert area == pytest.approx(reference.roc_auc_score(truth, probability), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_precision_recall_curve_is_that_of_scikit_learn(ties):
    truth, probability = simulated(200, ties=ties)
    points = np.array(curves(truth, probability)["precision_recall"])
    precision, recall, _ = reference.precision_recall_curve(truth, probability)
    everywhere = {(round(r, 12), round(p, 12)) for r, p in zip(recall, precision, strict=True)}
    assert {(round(r, 12), round(p, 12)) for r, p in points} <= everywhere
    assert points[0].tolist() == [0, 1]
    assert points[-1].tolist() == [1, pytest.approx(truth.mean())]
    area = reference.auc(points[:, 0], points[:, 1])
    assert area == pytest.approx(reference.auc(recall, precision), abs=1e-9)


def test_a_long_curve_is_thinned_to_500_points_and_keeps_its_ends_and_its_area():
    truth, probability = simulated(20_000)
    found = curves(truth, probability)
    for name in ("roc", "precision_recall"):
        assert len(found[name]) == MAX_POINTS
    points = np.array(found["roc"])
    assert (tuple(points[0]), tuple(points[-1])) == ((0, 0), (1, 1))
    area = reference.auc(points[:, 0], points[:, 1])
    assert area == pytest.approx(reference.roc_auc_score(truth, probability), abs=1e-3)


def test_a_perfect_curve_has_only_its_corners():
    truth, probability = np.array([False, False, True, True]), np.array([0.1, 0.2, 0.7, 0.9])
    found = curves(truth, probability)
    assert found["roc"] == [[0, 0], [0, 1], [1, 1]]
    assert found["precision_recall"][:2] == [[0, 1], [1, 1]]


def test_reliability_is_that_of_scikit_learn_and_adds_up_to_the_ece():
    truth, probability = simulated(300)
    bins = curves(truth, probability)["reliability"]
    filled = [b for b in bins if b["n"]]
    share, mean = calibration_curve(truth, probability, n_bins=15)
    assert [b["share_positive"] for b in filled] == pytest.approx(share.tolist())
    assert [b["mean_probability"] for b in filled] == pytest.approx(mean.tolist())
    gaps = sum(b["n"] * abs(b["mean_probability"] - b["share_positive"]) for b in filled)
    assert gaps / 300 == pytest.approx(ece(truth, probability))


def test_reliability_has_fifteen_bins_and_nothing_to_say_of_empty_ones():
    bins = curves(np.array([True, False]), np.array([1.0, 0.0]))["reliability"]
    assert [b["n"] for b in bins] == [1, *[0] * 13, 1]
    assert (bins[0]["low"], bins[-1]["high"]) == (0, 1)
    for empty in bins[1:-1]:
        assert (empty["mean_probability"], empty["share_positive"]) == (None, None)


def test_the_histogram_counts_every_radiograph_under_its_truth():
    truth, probability = simulated(200)
    histogram = curves(truth, probability)["histogram"]
    assert sum(histogram["negative"]) == (~truth).sum()
    assert sum(histogram["positive"]) == truth.sum()
    assert len(histogram["edges"]) == len(histogram["negative"]) + 1
    assert (histogram["edges"][0], histogram["edges"][-1]) == (0, 1)
