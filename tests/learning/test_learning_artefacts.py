"""What else is in the picture than lungs, and whose frame."""

import numpy as np
import pytest
import torch

from chestxray.learning.artefacts import (
    bars,
    burn_letters,
    erase,
    middle,
    put_into_frame,
    redact,
    soft,
)
from chestxray.learning.draws import Draws
from factories.datasets import radiograph_levels

SIDE_PX, N = 96, 60


def draws(n: int = N, step: int = 0) -> Draws:
    return Draws((0, 0, step), n, torch.device("cpu"))


def alike(level: float) -> torch.Tensor:
    return torch.full((N, 1, SIDE_PX, SIDE_PX), level)


@pytest.mark.parametrize("change", [bars, burn_letters, erase, redact])
def test_a_change_leaves_what_it_is_given_and_stays_within_the_range(change):
    pictures = alike(0.5)
    changed = change(pictures, draws())
    assert torch.equal(pictures, alike(0.5))
    assert changed.shape == pictures.shape
    assert changed.dtype == torch.float32
    assert (changed.min() >= 0) & (changed.max() <= 1)
    assert (changed != pictures).any((1, 2, 3)).float().mean() > 0.9


@pytest.mark.parametrize("change", [bars, burn_letters, erase, redact])
def test_a_change_is_another_for_each_picture_and_each_draw(change):
    changed, again, others = (change(alike(0.5), draws(step=step)) for step in (0, 0, 1))
    assert torch.equal(changed, again)
    assert not torch.equal(changed, others)
    assert len({picture.numpy().tobytes() for picture in changed}) > 0.9 * N


def test_bars_are_at_the_sides_and_of_one_level_mostly_black():
    changed = bars(alike(0.5), draws())[:, 0]
    barred = changed != 0.5
    assert not barred[:, 14:-14, 14:-14].any()  # a seventh wide at most
    levels = changed[barred]
    assert set(levels.unique().tolist()) == {0.0, 1.0}
    assert (levels == 0).float().mean() > 0.6
    upright, lying = barred.all(1).any(1), barred.all(2).any(1)
    assert upright.float().mean() > lying.float().mean() > 0


def test_letters_are_bright_small_and_away_from_the_middle():
    inked = burn_letters(alike(0.0), draws())[:, 0]
    assert not inked[:, 44:52, 44:52].any()
    covered = (inked > 0).float().mean((1, 2))
    assert (covered > 0).float().mean() > 0.9  # some run out of the picture
    assert covered.max() < 0.15
    brightest = inked.amax((1, 2))
    assert brightest[covered > 0.005].min() > 0.4


def test_redactions_are_small_near_the_edges_and_bright_or_black():
    changed = redact(alike(0.5), draws())[:, 0]
    levels = changed[changed != 0.5]
    assert ((levels == 0) | (levels >= 0.7)).all()
    assert 0.05 < (levels == 0).float().mean() < 0.5
    near_middle, near_edge = changed[:, 40:56, 40:56], changed[:, :16]
    assert (near_middle != 0.5).float().mean() < 0.3 * (near_edge != 0.5).float().mean()


def test_one_to_four_rectangles_are_erased_anywhere():
    changed = erase(alike(0.5), draws())[:, 0]
    share = (changed != 0.5).float().mean((1, 2))
    assert share.max() < 0.4
    assert (changed != 0.5).any(0).float().mean() > 0.95  # no place is safe
    for picture in changed:
        assert len(picture[picture != 0.5].unique()) <= 4


def test_lungs_stand_in_the_frame_where_their_mask_is_and_nowhere_else():
    lungs, frame = alike(0.2), alike(0.7)
    within = torch.zeros(N, 1, SIDE_PX, SIDE_PX)
    within[..., 30:60] = 1
    within[..., 60:70] = 0.5
    made = put_into_frame(lungs, within, frame, torch.zeros(N))
    torch.testing.assert_close(made[..., 30:60], lungs[..., 30:60])
    torch.testing.assert_close(made[..., 60:70], alike(0.45)[..., 60:70])
    torch.testing.assert_close(made[..., 70:], frame[..., 70:])
    torch.testing.assert_close(made[..., :30], frame[..., :30])


def test_the_grey_level_of_lungs_moves_its_share_of_the_way_to_what_they_cover():
    lungs = torch.from_numpy(radiograph_levels(1, opacity=True, side_px=SIDE_PX) / np.float32(510))
    lungs = lungs.expand(3, 1, -1, -1)
    frame = torch.full((3, 1, SIDE_PX, SIDE_PX), 0.6)
    frame[..., :30] = 0.9  # not covered, so no matter
    within = torch.zeros(3, 1, SIDE_PX, SIDE_PX)
    within[..., 30:60] = 1
    shares = torch.tensor([0.0, 0.5, 1.0])
    made = put_into_frame(lungs, within, frame, shares)[..., 30:60]
    before = lungs[..., 30:60]
    means = torch.lerp(before.mean((1, 2, 3)), torch.tensor(0.6), shares)
    torch.testing.assert_close(made.mean((1, 2, 3)), means)
    assert (made.std((1, 2, 3)) - before.std((1, 2, 3))).abs().max() < 1e-5


def test_a_soft_mask_is_eroded_by_half_of_its_rim_and_rises_over_the_rest():
    mask = torch.zeros(1, 1, SIDE_PX, SIDE_PX)
    mask[..., 40:] = 1
    profile = soft(mask, 7)[0, 0, 50]
    # Seven pixels about column 40 + i lie in the mask by i + 4: above a half from column 40 on.
    expected = [0.0, 1 / 7, 3 / 7, 5 / 7, 1.0]
    assert profile[39:44].tolist() == pytest.approx(expected)
    assert not profile[:40].any()
    assert profile[43:].tolist() == [1] * 53  # the picture's own edge is no edge of the mask


def test_the_middle_holds_the_lungs_and_none_of_the_edges():
    where = middle(draws(), SIDE_PX)
    assert where.shape == (N, 1, SIDE_PX, SIDE_PX)
    assert (where[:, 0, 34:60, 24:72] == 1).all()
    assert not where[:, 0, :, [0, -1]].any()
    assert not where[:, 0, [0, -1]].any()
    assert ((where > 0) & (where < 1)).any()
