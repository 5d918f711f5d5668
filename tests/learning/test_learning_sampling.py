from collections import Counter

import numpy as np
import pytest

from chestxray.dataset import Sample, read_dataset
from chestxray.errors import ConfigError
from chestxray.learning.sampling import Sampler, strata_of, weights_of
from factories import images
from factories.datasets import LABELS, radiograph_levels, write_files
from factories.training_pictures import sample


@pytest.fixture
def strata(tiny_config):
    return tiny_config(sampling="strata")


def several(truth: str, source: str, n: int, **told: str) -> list[Sample]:
    return [sample(number, truth, source, **told) for number in range(n)]


def drawn(samples: list[Sample], config, epoch: int = 0) -> list[Sample]:
    return [samples[i] for i in Sampler(samples, config).order(epoch)]


def test_a_plain_epoch_shows_every_image_once_in_another_order_each_time(tiny_config):
    samples = several("NORMAL", "a", 40) + several("PNEUMONIA", "b", 10)
    sampler = Sampler(samples, tiny_config())
    orders = [sampler.order(epoch).tolist() for epoch in range(2)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1]


def test_the_order_follows_from_seed_and_epoch(tiny_config):
    samples = several("NORMAL", "a", 14) + several("PNEUMONIA", "b", 8)

    def order(seed: int, epoch: int) -> list[int]:
        config = tiny_config(sampling="strata", seed=seed)
        return Sampler(samples, config).order(epoch).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_both_truths_come_as_often_however_many_there_are_of_each(strata):
    samples = several("NORMAL", "a", 10) + several("PNEUMONIA", "a", 90)
    for epoch in range(3):
        counts = Counter(s.truth for s in drawn(samples, strata, epoch))
        assert counts == {"NORMAL": 50, "PNEUMONIA": 50}


def test_of_each_truth_sources_come_by_their_shares_and_as_often_where_none_is_given(tiny_config):
    samples = [
        *several("NORMAL", "a", 60),
        *several("NORMAL", "b", 10),
        *several("NORMAL", "c", 10),
        *several("PNEUMONIA", "a", 10),
        *several("PNEUMONIA", "b", 30),
    ]
    config = tiny_config(sampling="strata", shares={"a": 2.0})
    counts = Counter((s.truth, s.source) for s in drawn(samples, config))
    assert counts == {
        ("NORMAL", "a"): 30,
        ("NORMAL", "b"): 15,
        ("NORMAL", "c"): 15,
        ("PNEUMONIA", "a"): 40,
        ("PNEUMONIA", "b"): 20,
    }


def test_of_each_source_groups_or_else_views_come_as_often(strata):
    samples = [
        *several("NORMAL", "a", 30, view="PA"),
        *several("NORMAL", "b", 12, view="AP"),
        *several("NORMAL", "b", 48, view="PA"),
        *several("PNEUMONIA", "a", 90, group="bacteria", view="AP"),
        *several("PNEUMONIA", "a", 10, group="virus", view="AP"),
        *several("PNEUMONIA", "a", 10, group="virus", view="PA"),
    ]
    counts = Counter((s.truth, s.source, s.group or s.view) for s in drawn(samples, strata))
    assert counts == {
        ("NORMAL", "a", "PA"): 50,
        ("NORMAL", "b", "AP"): 25,
        ("NORMAL", "b", "PA"): 25,
        ("PNEUMONIA", "a", "bacteria"): 50,
        ("PNEUMONIA", "a", "virus"): 50,
    }


def test_none_of_a_stratum_comes_again_before_all_others_came(strata):
    samples = several("NORMAL", "a", 5) + several("PNEUMONIA", "a", 35)
    for epoch in range(3):
        counts = np.bincount(Sampler(samples, strata).order(epoch), minlength=40)
        assert counts[:5].tolist() == [4] * 5  # a half of 40 draws among five
        assert counts[5:].sum() == 20
        assert counts[5:].max() == 1


@pytest.mark.parametrize("n", [7, 50, 101])
def test_an_epoch_is_as_long_as_there_are_samples_whatever_the_shares(tiny_config, n):
    samples = (
        several("NORMAL", "a", n - 4) + several("NORMAL", "b", 1) + several("PNEUMONIA", "c", 3)
    )
    config = tiny_config(sampling="strata", shares={"a": 0.3, "b": 3.1})
    assert len(Sampler(samples, config).order(0)) == n


def test_a_source_of_share_nothing_is_never_drawn(tiny_config):
    samples = several("NORMAL", "a", 9) + several("NORMAL", "b", 9) + several("PNEUMONIA", "a", 9)
    config = tiny_config(sampling="strata", shares={"b": 0.0})
    assert {s.source for s in drawn(samples, config)} == {"a"}


def test_weights_are_how_often_each_is_drawn_in_the_mean(tiny_config, strata):
    samples = (
        several("NORMAL", "a", 30) + several("NORMAL", "b", 10) + several("PNEUMONIA", "a", 40)
    )
    weights = weights_of(samples, strata)
    assert weights.mean() == pytest.approx(1)
    assert weights.tolist() == pytest.approx([20 / 30] * 30 + [20 / 10] * 10 + [1] * 40)
    assert weights_of(samples, tiny_config()).tolist() == [1] * 80


def test_published_names_are_drawn_by_their_groups_and_others_by_truth(
    few_samples, tmp_path, tiny_config, strata
):
    assert [kind for _, _, kind in strata_of(few_samples, strata)] == [s.group for s in few_samples]
    assert set(strata_of(few_samples, tiny_config())) == {()}
    picture = images.png(radiograph_levels(0, opacity=False))
    files = {"NORMAL/n.png": picture, "PNEUMONIA/p.png": picture + b" "}
    unnamed = read_dataset(write_files(tmp_path / "place", files), LABELS)
    assert strata_of(unnamed, strata) == [("NORMAL", "place", ""), ("PNEUMONIA", "place", "")]


def test_weights_are_how_often_each_is_drawn(strata):
    samples = [
        *several("NORMAL", "a", 30),
        *several("NORMAL", "b", 10),
        *several("PNEUMONIA", "a", 60),
    ]
    weights = weights_of(samples, strata)
    assert weights.mean() == pytest.approx(1)
    assert weights[0] * 30 == pytest.approx(weights[30] * 10)
    assert weights[:40].sum() == pytest.approx(weights[40:].sum())


def test_drawn_plainly_all_weigh_the_same(tiny_config):
    samples = several("NORMAL", "a", 30) + several("PNEUMONIA", "a", 5)
    assert set(weights_of(samples, tiny_config())) == {1.0}


def test_a_truth_whose_sources_all_have_no_share_is_an_error(tiny_config):
    samples = several("NORMAL", "a", 9) + several("PNEUMONIA", "b", 9)
    with pytest.raises(ConfigError, match="nothing is left of PNEUMONIA"):
        Sampler(samples, tiny_config(sampling="strata", shares={"b": 0.0}))
