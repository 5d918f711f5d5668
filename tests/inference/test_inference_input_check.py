"""The score falls with the distance to the training's features, and its threshold is as asked."""

import numpy as np
import pytest

from chestxray.inference.bundle import InputCheck
from chestxray.inference.input_check import COMPONENTS, FeatureModel, fit_input_check

RANDOM = np.random.default_rng(0)
N_FEATURES = 64
MIXING = RANDOM.normal(size=(N_FEATURES, N_FEATURES)) * np.geomspace(3, 0.05, N_FEATURES)


def features(n: int) -> np.ndarray:
    """Correlated, non-negative features as a network pools them."""
    return np.abs(RANDOM.normal(size=(n, N_FEATURES)) @ MIXING.T + 40)


TRAIN, HELDOUT = features(2000), features(1000)
CHECK = fit_input_check(TRAIN, HELDOUT)


def test_the_asked_share_of_held_out_radiographs_is_accepted() -> None:
    accepted = FeatureModel(CHECK).score(HELDOUT) >= CHECK.threshold
    assert accepted.mean() == pytest.approx(0.99, abs=0.0011)


def test_training_radiographs_lie_at_a_distance_of_about_one() -> None:
    assert FeatureModel(CHECK).distance(TRAIN).mean() == pytest.approx(1, abs=0.1)


def test_the_distance_is_mahalanobis_where_every_direction_is_kept() -> None:
    train = TRAIN[:, :8]
    check = fit_input_check(train, train)
    assert len(check.components) == 7  # and the eighth is the residual
    z = (train - train.mean(0)) / train.std(0)
    exact = np.einsum("ni,ij,nj->n", z, np.linalg.inv(np.cov(z.T, bias=True)), z)
    np.testing.assert_allclose(FeatureModel(check).distance(train), np.sqrt(exact / 8), rtol=1e-3)


def test_the_score_falls_from_one_to_nothing_as_features_move_away() -> None:
    away = CHECK.mean + np.outer([0, 1, 3, 10, 1e3, 1e9], CHECK.std)
    scores = FeatureModel(CHECK).score(away)
    assert scores[0] == 1
    assert scores.tolist() == sorted(scores, reverse=True)
    assert scores[-1] < 1e-9
    assert ((scores >= 0) & (scores <= 1)).all()


def test_a_break_with_the_training_correlations_is_seen_though_each_feature_is_usual() -> None:
    shuffled = np.stack([RANDOM.permutation(column) for column in HELDOUT.T], 1)
    assert (FeatureModel(CHECK).score(shuffled) < CHECK.threshold).mean() > 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_score_nothing_and_raise_nothing(value: float) -> None:
    broken = HELDOUT[:2].copy()
    broken[0, 3] = value
    scores = FeatureModel(CHECK).score(broken)
    assert scores[0] == 0
    assert scores[1] == FeatureModel(CHECK).score(HELDOUT[:2])[1]


def test_a_channel_that_never_fired_in_training_does_not_refuse_by_itself() -> None:
    train, heldout = TRAIN.copy(), HELDOUT.copy()
    train[:, 0] = heldout[:, 0] = 0
    check = fit_input_check(train, heldout)
    heldout[:, 0] = 0.001 * np.median(TRAIN.std(0))
    assert (FeatureModel(check).score(heldout) >= check.threshold).mean() > 0.98


def test_few_radiographs_give_fewer_components_and_no_error() -> None:
    check = fit_input_check(TRAIN[:10], HELDOUT[:10])
    assert len(check.components) == 9
    assert np.isfinite(FeatureModel(check).score(HELDOUT)).all()


def test_what_is_stored_is_small_and_is_what_was_fitted() -> None:
    assert len(CHECK.components) == COMPONENTS
    text = CHECK.model_dump_json()
    assert len(text) < 14 * COMPONENTS * N_FEATURES + 4000
    assert InputCheck.model_validate_json(text) == CHECK
