"""Features here are the pictures themselves, in cells."""

import numpy as np
import pytest

from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.bundle import InputCheck
from chestxray.inference.input_check import FeatureModel, fit_input_check
from chestxray.learning.layout import fit_layout, not_whole

SIDE_PX, CELLS = 48, 12
WHOLE = np.stack([np.uint8(255 * synthetic_radiograph(seed, SIDE_PX)) for seed in range(400)])


def features(levels: np.ndarray) -> np.ndarray:
    n = len(levels)
    cells = levels.reshape(n, CELLS, SIDE_PX // CELLS, CELLS, SIDE_PX // CELLS).mean((2, 4))
    return (cells.reshape(n, -1) / 255).astype(np.float32)


SEEN, UNSEEN = features(WHOLE[:300]), features(WHOLE[300:])
OTHER = not_whole(WHOLE[:300], seed=0)
LAYOUT = fit_layout(SEEN, features(OTHER), UNSEEN, 0.97)
CHECK = fit_input_check(SEEN.mean(1, keepdims=True), UNSEEN.mean(1, keepdims=True), 1.0).model_copy(
    update={"layout": LAYOUT}
)


def accepted(levels: np.ndarray) -> float:
    return float((FeatureModel(CHECK).score(features(levels)) >= CHECK.threshold).mean())


def test_every_picture_is_changed_and_none_twice_in_the_same_way():
    changed = np.abs(OTHER.astype(int) - WHOLE[:300]).mean((1, 2))
    assert changed.min() > 3
    assert OTHER.shape == WHOLE[:300].shape
    np.testing.assert_array_equal(OTHER, not_whole(WHOLE[:300], seed=0))
    assert (not_whole(WHOLE[:300], seed=1) != OTHER).any()


def test_fewer_pictures_than_kinds_are_changed_too():
    assert not_whole(WHOLE[:3], seed=0).shape == (3, SIDE_PX, SIDE_PX)


def test_the_asked_share_of_held_out_radiographs_is_accepted_and_what_is_not_whole_is_not():
    assert accepted(WHOLE[300:]) == pytest.approx(0.97, abs=0.011)
    assert accepted(not_whole(WHOLE[300:], seed=1)) < 0.1


def test_ways_of_not_being_whole_that_were_not_shown_are_refused_too():
    shifted = np.roll(WHOLE[300:], SIDE_PX // 2, axis=2)
    mirrored_halves = np.concatenate([WHOLE[300:, ::-1, : SIDE_PX // 2]] * 2, axis=2)
    noise = np.random.default_rng(0).integers(0, 256, WHOLE[300:].shape, dtype=np.uint8)
    assert [accepted(p) for p in (shifted, mirrored_halves, noise)] == pytest.approx(
        [0, 0, 0], abs=0.1
    )


def test_the_score_is_the_threshold_where_the_layout_says_so_and_rises_with_it():
    weights = np.asarray(LAYOUT.weights)
    on_it = UNSEEN[0] - weights * ((UNSEEN[0] @ weights + LAYOUT.bias) / (weights @ weights))
    step = weights / np.linalg.norm(weights) ** 2
    scores = FeatureModel(CHECK).score(np.stack([on_it + step * k for k in (-4, -1, 0, 1, 4)]))
    assert scores[2] == pytest.approx(CHECK.threshold, abs=1e-3)
    assert (np.diff(scores) > 0).all()
    assert scores[0] == pytest.approx(1 / (1 + np.exp(4)), abs=1e-3)


def test_what_is_far_from_the_training_is_refused_however_whole_it_looks():
    far = np.full((1, CELLS**2), 1e6) * np.sign(LAYOUT.weights)
    assert far @ LAYOUT.weights + LAYOUT.bias > 0
    assert FeatureModel(CHECK).score(far + 1e9) < CHECK.threshold


def test_a_layout_is_kept_in_the_manifest_and_must_fit_the_channels():
    assert InputCheck.model_validate_json(CHECK.model_dump_json()) == CHECK
    assert CHECK.n_features == CELLS**2
    two = CHECK.model_dump() | {"mean": [0.1] * 7, "std": [1.0] * 7}
    two |= {"components": [[1.0] + [0.0] * 6], "variances": [1.0]}
    with pytest.raises(ValueError, match="as many weights for each feature"):
        InputCheck.model_validate(two)
