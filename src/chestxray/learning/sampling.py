"""Which pictures make a batch: an order of every epoch that follows from (seed, epoch).

Drawn plainly, the commonest source, view and group would decide what is learned, and where one view
or source has most of the finding, it would be learned in its place.

Does not: read pictures or change them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset import Sample
from chestxray.errors import ConfigError

if TYPE_CHECKING:
    from chestxray.learning.config import TrainConfig


Stratum = tuple[str, ...]


class Sampler:
    """The order of every epoch, as long as there are samples.

    Each stratum gets its share of an epoch, those of a small one come more than once; within a
    stratum none comes again before all others came.
    """

    def __init__(self, samples: Sequence[Sample], config: TrainConfig) -> None:
        self._seed, self._n = config.seed, len(samples)
        strata = strata_of(samples, config)
        shares = _shares(set(strata), config)
        members: dict[Stratum, list[int]] = {stratum: [] for stratum in sorted(shares)}
        for i, stratum in enumerate(strata):
            members[stratum].append(i)
        self._members = [np.array(of_stratum) for of_stratum in members.values()]
        ends = np.cumsum([shares[stratum] for stratum in members]) * self._n
        self._counts = np.diff(np.rint(ends).astype(int), prepend=0)

    def order(self, epoch: int) -> NDArray[np.int_]:
        """Indices of samples, (N,)."""
        random = np.random.default_rng((self._seed, epoch))
        drawn = []
        for members, count in zip(self._members, self._counts, strict=True):
            rounds = -(-count // len(members))
            turns = [random.permutation(members) for _ in range(rounds)]
            drawn.append(np.concatenate([np.zeros(0, int), *turns])[:count])
        return random.permutation(np.concatenate(drawn))


def weights_of(samples: Sequence[Sample], config: TrainConfig) -> NDArray[np.float64]:
    """How often each would be drawn, (N,), with mean 1: what is fitted on samples that were not
    drawn, such as held-out ones, is so fitted on the mixture that was learned from."""
    strata = strata_of(samples, config)
    shares, sizes = _shares(set(strata), config), Counter(strata)
    return np.array([shares[s] / sizes[s] for s in strata]) * len(samples)


def strata_of(samples: Sequence[Sample], config: TrainConfig) -> list[Stratum]:
    """What each sample is drawn as: (truth, source, group or else view); () for all if plainly."""
    if config.sampling == "plain":
        return [()] * len(samples)
    return [(s.truth, s.source, s.groups.get("group") or s.view or "") for s in samples]


def _shares(strata: set[Stratum], config: TrainConfig) -> dict[Stratum, float]:
    """The share of each in an epoch: truths alike, of each truth its sources by ``config.shares``,
    of each source its groups or views alike.

    Raises:
        ConfigError: all sources of a truth have a share of 0.
    """
    if config.sampling == "plain":
        return dict.fromkeys(strata, 1.0)
    kinds = Counter((truth, source) for truth, source, _ in strata)
    weights = {
        (truth, source, kind): config.shares.get(source, 1.0) / kinds[truth, source]
        for truth, source, kind in strata
    }
    totals: dict[str, float] = defaultdict(float)
    for (truth, _, _), weight in weights.items():
        totals[truth] += weight
    for truth, total in totals.items():
        if total == 0:
            raise ConfigError(f"shares: nothing is left of {truth}")
    return {
        stratum: weight / totals[stratum[0]] / len(totals) for stratum, weight in weights.items()
    }
