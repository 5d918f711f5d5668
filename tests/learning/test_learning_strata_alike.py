import pytest
import torch

from chestxray.learning.augmentation import Batch
from chestxray.learning.processes import ALONE
from chestxray.learning.strata_alike import MEMORY, StratumMeans


def batch(strata: list[int], targets: list[float]) -> Batch:
    nothing = torch.zeros(len(strata), 1, 1)
    unknown = torch.zeros(len(strata), dtype=torch.bool)
    return Batch(
        pixels=nothing[:, None],
        targets=torch.tensor(targets, dtype=torch.float32),
        lungs=nothing,
        knows_lungs=unknown,
        boxes=nothing,
        knows_boxes=unknown,
        strata=torch.tensor(strata),
    )


def gradient(means: StratumMeans, logits: list[float], of: Batch) -> list[float]:
    logit = torch.tensor(logits, requires_grad=True)
    means.loss(logit, of).backward()
    return logit.grad.tolist()


def test_strata_of_one_truth_are_pulled_together():
    of = batch([0, 0, 1, 2], [0, 0, 0, 1])
    # Means 2 and 0 of the negative strata, 1 of both: each logit is asked to move by one.
    assert gradient(StratumMeans(3, ALONE), [1.0, 3.0, 0.0, 9.0], of) == pytest.approx(
        [2 / 4, 2 / 4, -2 / 4, 0]
    )


def test_the_loss_is_the_mean_squared_distance():
    of = batch([0, 1], [0, 0])
    assert float(StratumMeans(2, ALONE).loss(torch.tensor([3.0, -1.0]), of)) == pytest.approx(4)


def test_truths_are_never_pulled_together():
    of = batch([0, 1], [0, 1])
    assert gradient(StratumMeans(2, ALONE), [-5.0, 5.0], of) == [0, 0]


def test_a_stratum_that_was_not_drawn_is_remembered():
    means = StratumMeans(2, ALONE)
    means.loss(torch.tensor([4.0, 0.0]), batch([0, 1], [0, 0]))
    means.loss(torch.tensor([0.0]), batch([1], [0]))
    assert means.means.tolist() == [4, 0]
    means.loss(torch.tensor([2.0]), batch([1], [0]))
    assert means.means.tolist() == pytest.approx([4, 2 * (1 - MEMORY)])


def test_a_stratum_never_drawn_pulls_nobody():
    assert gradient(StratumMeans(5, ALONE), [3.0], batch([4], [1])) == [0]


def test_its_state_comes_back():
    one, other = StratumMeans(2, ALONE), StratumMeans(2, ALONE)
    one.loss(torch.tensor([4.0, 0.0]), batch([0, 1], [0, 1]))
    other.load_state(one.state())
    assert other.means.tolist() == one.means.tolist()
    assert other.positive.tolist() == [0, 1]
