from dataclasses import replace
from pathlib import Path

import pytest

from chestxray.dataset import Sample, read_dataset, split_heldout
from chestxray.errors import ConfigError
from chestxray.evaluation.heldout import heldout_samples
from chestxray.inference import Manifest
from factories.bundles import tiny_manifest, tiny_model
from factories.datasets import LABELS, write_dataset


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    return read_dataset(write_dataset(tmp_path_factory.mktemp("heldout") / "data", 20), LABELS)


def manifest_of(samples: list[Sample], seed: int = 3, **changes: object) -> Manifest:
    """Of a bundle that was trained on a part of ``samples``."""
    split = split_heldout(samples, 0.3, seed)
    facts = {
        "config": {"heldout": 0.3, "seed": seed},
        "n_train": len(split.train),
        "n_heldout": len(split.heldout),
    }
    return tiny_manifest(tiny_model(), training=facts | changes)


def test_the_split_that_the_manifest_names_is_made_again(samples):
    assert (
        heldout_samples(samples, [manifest_of(samples)])
        == split_heldout(samples, 0.3, seed=3).heldout
    )


def test_two_bundles_are_judged_on_what_neither_was_trained_on(samples):
    both = heldout_samples(samples, [manifest_of(samples, 3), manifest_of(samples, 4)])
    held = [{s.path for s in split_heldout(samples, 0.3, seed).heldout} for seed in (3, 4)]
    assert {s.path for s in both} == held[0] & held[1]


def test_another_folder_than_the_one_trained_on_is_refused(samples):
    with pytest.raises(ConfigError, match="not the folder that tiny was trained on"):
        heldout_samples(samples[1:], [manifest_of(samples)])


def test_a_folder_too_small_to_split_is_refused(samples):
    with pytest.raises(ConfigError, match="no split of the training data of tiny"):
        heldout_samples(samples[:1], [manifest_of(samples)])


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"seed": 0},
        {"config": None, "n_train": 1, "n_heldout": 1},
        {"config": {"heldout": "some", "seed": 0}, "n_train": 1, "n_heldout": 1},
        {"config": {"heldout": 0.0, "seed": 0}, "n_train": 1, "n_heldout": 1},
        {"config": {"heldout": 0.3, "seed": 0}},
    ],
    ids=str,
)
def test_a_bundle_that_does_not_name_its_split_is_refused(samples, training):
    manifest = tiny_manifest(tiny_model(), training=training)
    with pytest.raises(ConfigError, match="does not say on which split it was trained"):
        heldout_samples(samples, [manifest])


def test_the_split_does_not_depend_on_where_the_folder_lies(samples):
    moved = [replace(s, file=Path("x")) for s in samples]
    paths = [s.path for s in heldout_samples(moved, [manifest_of(samples)])]
    assert paths == [s.path for s in split_heldout(samples, 0.3, seed=3).heldout]
