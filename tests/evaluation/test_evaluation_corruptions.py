from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from chestxray.evaluation.corruptions import (
    CORRUPTIONS,
    LUNG_CENTRES,
    NOT_FROM_A_CLINIC,
    SEVERITIES,
)
from chestxray.imaging import resize, stretch
from chestxray.imaging.synthetic import synthetic_radiograph

Pixels = NDArray[np.float32]

EITHER_WAY = ("contrast", "gamma", "brightness")


def corrupt(name: str, pixels: Pixels, severity: int, seed: int = 0) -> Pixels:
    return CORRUPTIONS[name](pixels, severity, np.random.default_rng(seed))


def distance(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a - b).mean())


@pytest.fixture(scope="module")
def radiograph() -> Pixels:
    """(200, 240): wider than high, so that a mix-up of the sides shows."""
    return stretch(synthetic_radiograph(3, 240), 200, 240)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(200, 240), (64, 64), (33, 150)])
def test_every_corruption_keeps_shape_type_and_range(name, shape):
    pixels = stretch(synthetic_radiograph(3, 240), *shape)
    before = pixels.copy()
    for severity in SEVERITIES:
        corrupted = corrupt(name, pixels, severity)
        assert corrupted.shape == shape
        assert corrupted.dtype == np.float32
        assert 0 <= corrupted.min() <= corrupted.max() <= 1
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_the_same_when_drawn_again(name, radiograph):
    np.testing.assert_array_equal(
        corrupt(name, radiograph, 3, seed=5), corrupt(name, radiograph, 3, seed=5)
    )


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_severity_takes_a_picture_further_from_the_clean_one(name, seed, radiograph):
    clean = 1 - radiograph if name == "inverted" else radiograph
    away = [distance(corrupt(name, radiograph, s, seed), clean) for s in SEVERITIES]
    assert all(milder < stronger for milder, stronger in pairwise(away)), away


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_says_what_it_does(name):
    texts = [CORRUPTIONS[name].level_text(severity) for severity in SEVERITIES]
    assert len(set(texts)) == 5
    assert not any("{" in text for text in texts)


def test_a_level_reads_well():
    assert CORRUPTIONS["jpeg"].level_text(2) == "quality 60"
    assert CORRUPTIONS["bars"].level_text(1) == "5% of the width, each"


@pytest.mark.parametrize("name", set(CORRUPTIONS) - {"jpeg", "marker", "noise"})
def test_resolution_does_not_matter(name):
    coarse, fine = resize(synthetic_radiograph(3, 448), 224), synthetic_radiograph(3, 448)
    for severity in (1, 5):
        at_coarse = corrupt(name, coarse, severity)
        at_fine = resize(corrupt(name, fine, severity), 224)
        # A corner of a pixel that is black or not is all that may differ.
        assert distance(at_coarse, at_fine) < 0.005 + 0.05 * distance(at_coarse, coarse)


@pytest.mark.parametrize("name", EITHER_WAY)
def test_the_direction_is_drawn_for_each_picture(name, radiograph):
    statistic = np.std if name == "contrast" else np.mean
    clean = statistic(radiograph)
    up = [statistic(corrupt(name, radiograph, 2, seed)) > clean for seed in range(40)]
    assert 10 <= sum(up) <= 30


def test_contrast_leaves_the_mean_and_stretches_about_it(radiograph):
    middle = np.float32(0.4) + radiograph * np.float32(0.2)  # so that nothing is clipped
    changed = corrupt("contrast", middle, 2)
    assert changed.mean() == pytest.approx(middle.mean(), abs=1e-5)
    ratio = changed.std() / middle.std()
    assert max(ratio, 1 / ratio) == pytest.approx(1.3, rel=1e-4)


def test_gamma_leaves_black_and_white_and_the_order_of_greys(radiograph):
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[np.newaxis].repeat(64, 0)
    changed = corrupt("gamma", ramp, 4)
    assert (changed[0, 0], changed[0, -1]) == (0, 1)
    assert (np.diff(changed[0]) > 0).all()
    exponent = np.log(changed[0, 32]) / np.log(ramp[0, 32])
    assert max(exponent, 1 / exponent) == pytest.approx(2, rel=1e-4)


def test_brightness_moves_every_grey_alike(radiograph):
    middle = np.float32(0.45) + radiograph * np.float32(0.1)
    moved = corrupt("brightness", middle, 3) - middle
    assert np.abs(moved) == pytest.approx(0.2, abs=1e-5)
    assert np.ptp(moved) < 1e-5


def test_blur_spreads_a_point_by_its_sigma():
    point = np.zeros((251, 251), np.float32)
    point[125, 125] = 1
    blurred = corrupt("blur", point, 5)
    away = np.arange(251) - 125
    assert blurred.sum() == pytest.approx(1, abs=1e-3)
    for axis in (0, 1):
        spread = np.sqrt((blurred.sum(axis) * away**2).sum())
        assert spread == pytest.approx(0.02 * 251, rel=0.02)


@pytest.mark.parametrize("side_px", [224, 448])
def test_noise_is_as_strong_at_224_px_whatever_the_resolution(side_px):
    grey = np.full((side_px, side_px), 0.5, np.float32)
    noisy = corrupt("noise", grey, 3)
    halves = noisy.reshape(224, side_px // 224, 224, side_px // 224).mean((1, 3))
    assert halves.std() == pytest.approx(0.05, rel=0.05)
    assert halves.mean() == pytest.approx(0.5, abs=0.002)


def test_jpeg_shows_its_blocks(radiograph):
    difference = np.abs(np.diff(corrupt("jpeg", radiograph, 5), axis=1)).mean(0)
    at_blocks = np.zeros(len(difference), dtype=bool)
    at_blocks[7::8] = True
    assert difference[at_blocks].mean() > 2 * difference[~at_blocks].mean()


def test_downscale_leaves_only_what_so_few_pixels_hold(radiograph):
    corrupted = corrupt("downscale", radiograph, 5)  # 40 px of 240
    spectrum = np.abs(np.fft.rfft(corrupted - corrupted.mean(), axis=1)).mean(0)
    assert spectrum[60:].sum() < 0.02 * spectrum.sum()
    np.testing.assert_allclose(resize(corrupted, 20), resize(radiograph, 20), atol=0.08)


def test_downscale_does_nothing_to_a_picture_that_has_no_more_pixels():
    small = synthetic_radiograph(0, 96)
    np.testing.assert_array_equal(corrupt("downscale", small, 3), small)


def test_rotation_turns_by_the_angle_and_shifts_by_its_share():
    line = np.zeros((201, 201), np.float32)
    line[:, 99:102] = 1
    for seed in range(6):
        moved = corrupt("rotation_and_shift", line, 3, seed)
        rows = np.arange(40, 161)
        columns = (moved[rows] * np.arange(201)).sum(1) / moved[rows].sum(1)
        slope, at_top = np.polyfit(rows - 100, columns, 1)
        assert abs(np.degrees(np.arctan(slope))) == pytest.approx(8, abs=0.2)
        assert abs(at_top - 100) <= 1.03 * 0.04 * 201


def test_a_rotated_picture_has_black_where_nothing_was():
    white = np.ones((101, 101), np.float32)
    moved = corrupt("rotation_and_shift", white, 5)
    assert moved.min() == 0
    assert moved[50, 50] == pytest.approx(1, abs=1e-6)


def test_the_marker_is_white_near_a_corner_and_nowhere_else(radiograph):
    corners = set()
    for seed in range(40):
        for severity in SEVERITIES:
            marked = corrupt("marker", radiograph, severity, seed)
            rows, columns = np.nonzero(marked != radiograph)
            assert (marked[rows, columns] == 1).all()
            in_height, in_width = rows / 200, columns / 240
            assert (in_height < 0.3).all() or (in_height > 0.7).all()
            assert (in_width < 0.3).all() or (in_width > 0.7).all()
            assert np.ptp(rows) <= CORRUPTIONS["marker"].levels[severity - 1] * 200 + 1
        corners.add((bool(rows[0] < 100), bool(columns[0] < 120)))
    assert len(corners) == 4


def test_bars_are_black_at_the_sides_and_the_whole_picture_lies_between(radiograph):
    for severity, share in zip(SEVERITIES, CORRUPTIONS["bars"].levels, strict=True):
        barred = corrupt("bars", radiograph, severity)
        bar_px = round(share * 240)
        assert (barred[:, :bar_px] == 0).all()
        assert (barred[:, -bar_px:] == 0).all()
        between = barred[:, bar_px:-bar_px]
        np.testing.assert_allclose(resize(between, 32), resize(radiograph, 32), atol=0.08)


def test_the_mildest_inversion_is_exact(radiograph):
    np.testing.assert_array_equal(corrupt("inverted", radiograph, 1), 1 - radiograph)


def test_every_inversion_turns_the_order_of_greys_round(radiograph):
    for severity in SEVERITIES:
        inverted = corrupt("inverted", radiograph, severity)
        order = np.argsort(radiograph, axis=None)
        assert (np.diff(inverted.ravel()[order]) <= 0).all()


def test_the_lungs_are_blacked_out_and_nothing_else_changes(radiograph):
    hidden_before = np.zeros(radiograph.shape, dtype=bool)
    for severity in SEVERITIES:
        blacked_out = corrupt("lungs_blacked_out", radiograph, severity)
        hidden = blacked_out != radiograph
        assert (blacked_out[hidden] == 0).all()
        assert (hidden[hidden_before]).all()
        for y, x in LUNG_CENTRES:
            assert blacked_out[round(y * 200), round(x * 240)] == 0
        hidden_before = hidden


def test_at_the_strongest_nearly_all_of_both_lungs_is_black():
    picture = synthetic_radiograph(0, 224)
    steps = (np.arange(224) + 0.5) / 224 * 2 - 1
    x, y = steps[np.newaxis, :], steps[:, np.newaxis]
    blacked_out = corrupt("lungs_blacked_out", picture, 5)
    for side in (-1, 1):  # where the phantom of seed 0 has its lungs, give or take its wobble
        lung = ((x - side * 0.43) / 0.33) ** 2 + ((y + 0.08) / 0.72) ** 2 <= 1
        assert (blacked_out[lung] == 0).mean() > 0.9
    assert (blacked_out[:, 108:116] == picture[:, 108:116]).all()  # the spine stays


def test_corruptions_that_no_clinic_sees_are_named():
    assert set(NOT_FROM_A_CLINIC) < set(CORRUPTIONS)
