"""Two pictures of 16 × 16 pixels: maps of where have 4 × 4 places, the evidence 2 × 2 cells."""

import math

import pytest
import torch
from torch import Tensor

from chestxray.learning.augmentation import Batch
from chestxray.learning.config import EvidenceLoss
from chestxray.learning.evidence_loss import evidence_loss, missed_share

NOTHING = EvidenceLoss(boxes=0, lungs=0, elsewhere=0)
FIRST_CELL, TOP_CELLS = (slice(2), slice(2)), (slice(2), slice(4))


def place(*within: slice) -> Tensor:
    """A map of where, 1 within."""
    where = torch.zeros(4, 4)
    where[within] = 1
    return where


def batch(
    targets: list[float],
    *,
    boxes: Tensor | None = None,
    lungs: Tensor | None = None,
) -> Batch:
    """A batch whose pictures all have these boxes and lungs, or none are known."""
    n = len(targets)
    known = {"boxes": boxes, "lungs": lungs}
    maps = {
        name: torch.zeros(n, 4, 4) if where is None else where.expand(n, 4, 4)
        for name, where in known.items()
    }
    knows = {f"knows_{name}": torch.full((n,), w is not None) for name, w in known.items()}
    return Batch(
        pixels=torch.zeros(n, 1, 16, 16),
        targets=torch.tensor(targets),
        strata=torch.zeros(n, dtype=torch.int64),
        **maps,
        **knows,
    )


def part(**weights: float) -> EvidenceLoss:
    return NOTHING.model_copy(update=weights)


# The share that is missed.


def test_flat_evidence_misses_what_the_region_leaves_of_the_map():
    flat = torch.full((2, 2, 2), 0.7)
    regions = torch.stack([place(*FIRST_CELL), place(*TOP_CELLS)])
    assert missed_share(flat, regions).tolist() == pytest.approx([math.log(4), math.log(2)])


def test_nothing_is_missed_where_all_evidence_lies_within_and_much_where_it_lies_outside():
    evidence = torch.zeros(2, 2, 2)
    evidence[0, 0, 0] = evidence[1, 1, 1] = 30
    missed = missed_share(evidence, place(*FIRST_CELL).expand(2, 4, 4))
    assert missed[0] == pytest.approx(0, abs=1e-6)
    assert missed[1] == pytest.approx(-math.log(1e-4))  # no more, however far away


def test_the_share_is_that_of_the_softmax():
    evidence = torch.tensor([[[1.0, 0.0], [0.0, -1.0]]])
    expected = math.e / (math.e + 2 + 1 / math.e)
    missed = missed_share(evidence, place(*FIRST_CELL)[None])
    assert missed.item() == pytest.approx(-math.log(expected))


def test_a_cell_counts_as_far_as_the_region_covers_it():
    # All of the first cell, and the left half of the one below.
    region = torch.maximum(place(*FIRST_CELL), place(slice(2, 4), slice(1)))
    missed = missed_share(torch.zeros(1, 2, 2), region[None])
    assert missed.item() == pytest.approx(-math.log((1 + 0.5) / 4))


def test_a_region_smaller_than_a_cell_can_be_met():
    evidence = torch.zeros(1, 2, 2)
    evidence[0, 1, 0] = 30
    missed = missed_share(evidence, place(slice(3, 4), slice(1))[None])  # a quarter of the cell
    assert missed.item() == pytest.approx(0, abs=1e-6)


# The parts of the loss.


def test_what_weighs_nothing_costs_nothing():
    known = batch([1.0, 0.0], boxes=place(*FIRST_CELL), lungs=place(*TOP_CELLS))
    assert evidence_loss(torch.randn(2, 2, 2), known, NOTHING).item() == 0


def test_where_the_evidence_is_where_it_should_be_the_loss_is_nothing():
    known = batch([1.0, 0.0], boxes=place(*FIRST_CELL), lungs=place(*TOP_CELLS))
    evidence = torch.zeros(2, 2, 2)
    evidence[0, 0, 0] = 30  # in the box, which lies in the lungs
    assert evidence_loss(evidence, known, EvidenceLoss()).item() == pytest.approx(0, abs=1e-6)


def test_boxes_are_asked_of_positives_that_have_some():
    weights = part(boxes=0.5)
    evidence = torch.zeros(2, 2, 2)
    boxed = batch([1.0, 0.0], boxes=place(*FIRST_CELL))
    # The mean over both pictures, of which the negative costs nothing.
    expected = 0.5 * math.log(4) / 2
    assert evidence_loss(evidence, boxed, weights).item() == pytest.approx(expected)
    assert evidence_loss(evidence, batch([1.0, 1.0]), weights).item() == 0


def test_lungs_are_asked_of_positives_without_boxes():
    weights = part(lungs=0.5)
    evidence = torch.zeros(2, 2, 2)
    unboxed = batch([1.0, 0.0], lungs=place(*TOP_CELLS))
    expected = 0.5 * math.log(2) / 2
    assert evidence_loss(evidence, unboxed, weights).item() == pytest.approx(expected)
    boxed = batch([1.0, 1.0], lungs=place(*TOP_CELLS), boxes=place(*FIRST_CELL))
    assert evidence_loss(evidence, boxed, weights).item() == 0
    assert evidence_loss(evidence, batch([1.0, 1.0]), weights).item() == 0


def test_evidence_of_either_sign_costs_its_mean_square_where_the_finding_is_not():
    weights = part(elsewhere=0.5)
    evidence = torch.tensor([[[5.0, 5.0], [2.0, -4.0]], [[5.0, 1.0], [0.0, -4.0]]])
    in_lungs = (2**2 + 4**2) / 4  # the lower cells of the positive
    in_box = (5**2 + 2**2 + 4**2) / 4  # all but its first
    negative = (5**2 + 1 + 4**2) / 4  # all
    for expected, known in (
        (in_lungs + negative, {"lungs": place(*TOP_CELLS)}),
        (in_box + negative, {"lungs": place(*TOP_CELLS), "boxes": place(*FIRST_CELL)}),
        (negative, {}),
    ):
        loss = evidence_loss(evidence, batch([1.0, 0.0], **known), weights)
        assert loss.item() == pytest.approx(0.5 * expected / 2)


def test_a_cell_that_the_lungs_touch_is_not_elsewhere():
    known = batch([1.0], lungs=place(slice(1, 2), slice(1, 2)))
    evidence = torch.zeros(1, 2, 2)
    evidence[0, 0, 0] = 5
    assert evidence_loss(evidence, known, part(elsewhere=1)).item() == 0


def test_a_network_of_one_cell_is_told_nothing_of_positives():
    known = batch([1.0], boxes=place(*FIRST_CELL), lungs=place(*TOP_CELLS))
    evidence = torch.randn(1, 1, 1, requires_grad=True)
    loss = evidence_loss(evidence, known, EvidenceLoss())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not evidence.grad.any()


def test_the_gradient_pushes_evidence_into_the_box_and_out_of_the_rest():
    known = batch([1.0], boxes=place(*FIRST_CELL), lungs=place(*TOP_CELLS))
    evidence = torch.full((1, 2, 2), 0.5, requires_grad=True)
    evidence_loss(evidence, known, EvidenceLoss()).backward()
    gradient = evidence.grad[0]
    assert gradient[0, 0] < 0
    assert gradient[0, 1] > 0
    assert (gradient[1] > 0).all()


def test_the_parts_add_up():
    known = batch([1.0, 0.0, 1.0], lungs=place(*TOP_CELLS))
    evidence = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    weights = EvidenceLoss()
    parts = [
        evidence_loss(evidence, known, part(**{name: weight})).item()
        for name, weight in weights.model_dump().items()
    ]
    assert evidence_loss(evidence, known, weights).item() == pytest.approx(sum(parts))
