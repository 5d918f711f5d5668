import numpy as np
import pytest

from chestxray.learning.artefacts import blacken_sides, burn_marker, swap_surroundings
from factories.datasets import radiograph_levels


@pytest.fixture
def image():
    return radiograph_levels(0, opacity=True, side_px=96)


@pytest.mark.parametrize("change", [blacken_sides, burn_marker])
def test_the_image_that_goes_in_stays_as_it_is(image, change):
    before = image.copy()
    for seed in range(5):
        changed = change(image, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, before)


def test_the_middle_stays_and_the_frame_comes_from_the_other():
    lungs = radiograph_levels(1, opacity=True, side_px=96)
    other = np.tile(np.arange(96, dtype=np.uint8), (96, 1))
    for seed in range(10):
        swapped = swap_surroundings(lungs, other, np.random.default_rng(seed)).astype(int)
        middle = slice(34, 60)
        np.testing.assert_array_equal(swapped[middle, middle], lungs[middle, middle])
        # The frame is the other's up to its mean and contrast: a ramp, the same in each row.
        corner = swapped[:4, :20]
        assert np.ptp(corner, axis=0).max() == 0
        assert (np.diff(corner[0]) >= 0).all()
        assert corner[0, -1] > corner[0, 0]


def test_the_frame_gets_the_brightness_and_contrast_of_the_lungs_picture(image):
    dim = (image // 4 + 30).astype(np.uint8)
    for seed in range(5):
        swapped = swap_surroundings(image, dim, np.random.default_rng(seed)).astype(float)
        # Swapping a picture with a dimmed copy of itself gives the picture back.
        assert np.abs(swapped - image).mean() < 3


def test_a_frame_of_another_size_is_fitted(image):
    other = radiograph_levels(3, opacity=False, side_px=50)
    assert swap_surroundings(image, other, np.random.default_rng(0)).shape == image.shape


def test_a_marker_is_bright_small_and_away_from_the_middle(image):
    dark = np.zeros_like(image)
    sizes = []
    for seed in range(40):
        marked = burn_marker(dark, np.random.default_rng(seed))
        rows, columns = np.nonzero(marked)
        if len(rows):  # it may run out of the picture
            sizes.append(len(rows))
            assert marked.max() >= 100
            assert not ((rows > 40) & (rows < 56) & (columns > 40) & (columns < 56)).any()
    assert len(sizes) >= 35
    assert max(sizes) < 0.1 * dark.size


def test_bars_are_black_and_at_opposite_sides(image):
    bright = np.full_like(image, 200)
    turned = set()
    for seed in range(30):
        changed = blacken_sides(bright, np.random.default_rng(seed))
        rows = np.flatnonzero((changed == 0).all(axis=1))
        columns = np.flatnonzero((changed == 0).all(axis=0))
        assert set(np.unique(changed)) <= {0, 200}
        assert not (len(rows) and len(columns))
        for lines in (rows, columns):
            assert all(line < 13 or line >= 83 for line in lines)
        turned |= {"rows"} if len(rows) else {"columns"} if len(columns) else set()
    assert turned == {"rows", "columns"}
