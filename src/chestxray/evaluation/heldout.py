"""Finds the subjects of its own training data that a bundle was not trained on.

The manifest names the seed and the share of the split, and a split follows from them and from the
samples, so it can be made again wherever the training data lie.

Does not: prove that other data are free of training subjects; nothing in a bundle could.
"""

from __future__ import annotations

from collections.abc import Sequence

from chestxray.dataset import Sample, Split, split_heldout
from chestxray.errors import ConfigError, DatasetError
from chestxray.inference import Manifest


def heldout_samples(samples: Sequence[Sample], manifests: Sequence[Manifest]) -> list[Sample]:
    """Those of ``samples`` that none of the bundles was trained on.

    Raises:
        ConfigError: a manifest does not name its split, or ``samples`` are not what was split.
    """
    held = [{s.path for s in _split_of(samples, manifest).heldout} for manifest in manifests]
    return [sample for sample in samples if all(sample.path in paths for paths in held)]


def _split_of(samples: Sequence[Sample], manifest: Manifest) -> Split:
    training = manifest.training
    try:
        told = training["config"]
        heldout, seed, of_source = float(told["heldout"]), told["seed"], told.get("heldout_of", {})
        sides = (int(training["n_train"]), int(training["n_heldout"]))
        split = split_heldout(samples, heldout, int(seed), of_source)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as exc:
        raise ConfigError(
            f"the bundle {manifest.name} does not say on which split it was trained"
        ) from exc
    except DatasetError as exc:
        raise ConfigError(f"no split of the training data of {manifest.name}: {exc}") from exc
    if (len(split.train), len(split.heldout)) != sides:
        raise ConfigError(
            f"this is not the folder that {manifest.name} was trained on: it splits into "
            f"{len(split.train)} + {len(split.heldout)} radiographs, not {sides[0]} + {sides[1]}"
        )
    return split
