import numpy as np
import pytest

from chestxray.imaging import Radiograph
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Predictor
from chestxray.inference.polarity import correlation, fit_polarity, is_inverted


@pytest.fixture(scope="module")
def polarity():
    return fit_polarity([synthetic_radiograph(seed, 64) for seed in range(20)])


@pytest.mark.parametrize("side_px", [32, 64, 200])
def test_a_negative_is_told_from_a_radiograph_at_any_size(polarity, side_px):
    for seed in range(20, 30):
        picture = synthetic_radiograph(seed, side_px)
        assert not is_inverted(picture, polarity)
        assert is_inverted(1 - picture, polarity)


def test_brightness_and_contrast_change_nothing(polarity):
    picture = synthetic_radiograph(40, 64)
    dim = 0.3 * picture + np.float32(0.1)
    assert correlation(dim, polarity) == pytest.approx(correlation(picture, polarity), abs=1e-3)
    assert correlation(1 - picture, polarity) == pytest.approx(
        -correlation(picture, polarity), abs=1e-3
    )


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_empty_picture_is_left_as_it_is(polarity, level):
    empty = np.full((64, 64), level, np.float32)
    assert correlation(empty, polarity) == pytest.approx(0, abs=1e-6)
    assert not is_inverted(empty, polarity)


def test_a_negative_gets_the_answer_of_the_radiograph_and_says_so(tiny_bundle):
    predictor = Predictor.load(tiny_bundle)
    for seed in range(30, 36):
        pixels = synthetic_radiograph(seed, 96)
        upright, negative = predictor.predict(
            [Radiograph(p, "PNG", 96, 96) for p in (pixels, 1 - pixels)]
        )
        assert (upright.inverted, negative.inverted) == (False, True)
        assert negative.probability == pytest.approx(upright.probability, abs=1e-3)
        np.testing.assert_allclose(negative.evidence, upright.evidence, atol=1e-3)
