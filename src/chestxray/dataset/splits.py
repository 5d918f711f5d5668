"""Splits samples so that no subject and no exact duplicate stands on both sides.

Does not: choose what is split, or balance what is drawn from a side (``learning`` does).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chestxray.dataset.samples import Sample
from chestxray.errors import DatasetError, LeakError


def duplicates(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Sets of two or more samples whose files are equal to the byte."""
    same: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        same[sample.sha256].append(sample)
    return [copies for copies in same.values() if len(copies) > 1]


def inseparable(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that must stay together: of one subject, or of subjects that share a duplicate."""
    parent = {sample.subject: sample.subject for sample in samples}

    def root(subject: str) -> str:
        while parent[subject] != subject:
            subject = parent[subject] = parent[parent[subject]]
        return subject

    for copies in duplicates(samples):
        for copy in copies[1:]:
            parent[root(copy.subject)] = root(copies[0].subject)
    clusters: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        clusters[root(sample.subject)].append(sample)
    return list(clusters.values())


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a subject-disjoint split."""

    train: list[Sample]
    heldout: list[Sample]

    def __post_init__(self) -> None:
        check_disjoint(self.train, self.heldout)


def check_disjoint(train: Iterable[Sample], heldout: Iterable[Sample]) -> None:
    """Raises LeakError if a subject or an exact duplicate stands on both sides."""
    train, heldout = list(train), list(heldout)
    for what in ("subject", "sha256"):
        shared = {getattr(s, what) for s in train} & {getattr(s, what) for s in heldout}
        if shared:
            raise LeakError(f"{len(shared)} {what}(s) on both sides of the split: {min(shared)}, …")


def split_folds(samples: Sequence[Sample], n_folds: int, seed: int) -> list[Split]:
    """``n_folds`` subject-disjoint splits in which every sample is held out once.

    Clusters are dealt out in random order, the biggest first, each to the fold that has the fewest
    samples of its (truth, source, group), so that folds are alike in size and mix.
    """
    dealt = _deal(samples, lambda _: [1.0 / n_folds] * n_folds, seed)
    return [
        Split([s for other in dealt if other is not fold for s in other], fold) for fold in dealt
    ]


def split_heldout(
    samples: Sequence[Sample],
    heldout: float,
    seed: int,
    of_source: Mapping[str, float] | None = None,
) -> Split:
    """One subject-disjoint split that holds out about a share ``heldout`` of each kind.

    A kind is (truth, source, group). ``of_source`` holds out other shares of some sources, 1 for
    one that only judges; a subject of several sources follows the greatest.

    Raises:
        ValueError: ``heldout`` does not lie between 0 and 1.
        DatasetError: a side would lack a truth.
    """
    if not 0 < heldout < 1:
        raise ValueError(f"no share can be held out: {heldout}")
    of_source = of_source or {}

    def shares(sources: Iterable[str]) -> list[float]:
        held = max(of_source.get(source, heldout) for source in sources)
        return [1.0 - held, held]

    train, held = _deal(samples, shares, seed)
    return Split(train, held)


def of_sources(samples: Sequence[Sample], sources: Collection[str]) -> list[Sample]:
    """The samples of some sources, in their order.

    Raises:
        DatasetError: no sample is of one of them.
    """
    known = {sample.source for sample in samples}
    if unknown := set(sources) - known:
        raise DatasetError(
            f"no radiograph is of the source {min(unknown)}; there are: {', '.join(sorted(known))}"
        )
    return [sample for sample in samples if sample.source in sources]


def leave_out(samples: Sequence[Sample], sources: str | Collection[str]) -> Split:
    """One source or several held out, the others to train on, less the subjects that they share.

    Raises:
        DatasetError: no sample is of such a source, or the others lack a truth.
    """
    sources = {sources} if isinstance(sources, str) else set(sources)
    ordered = sorted(samples, key=lambda s: s.path)
    heldout = of_sources(ordered, sources)
    tied = {
        sample.path
        for cluster in inseparable(ordered)
        if any(sample.source in sources for sample in cluster)
        for sample in cluster
    }
    train = [sample for sample in ordered if sample.path not in tied]
    if {sample.positive for sample in train} != {False, True}:
        left = ", ".join(sorted(sources))
        raise DatasetError(f"without {left} there are no radiographs of both truths to train on")
    return Split(train, heldout)


def _deal(
    samples: Sequence[Sample], shares_of: Callable[[Iterable[str]], list[float]], seed: int
) -> list[list[Sample]]:
    """As many hands of samples as ``shares_of`` gives shares of some sources."""
    strata: dict[tuple[str, str, str, tuple[float, ...]], list[list[Sample]]] = defaultdict(list)
    hands: list[list[Sample]] = []
    for cluster in inseparable(sorted(samples, key=lambda s: s.path)):
        first, shares = cluster[0], shares_of({sample.source for sample in cluster})
        strata[first.truth, first.source, first.group or "", tuple(shares)].append(cluster)
        hands = hands or [[] for _ in shares]
    generator = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for (*_, wanted), clusters in sorted(strata.items()):
        generator.shuffle(clusters)
        clusters.sort(key=len, reverse=True)
        filled = [0] * len(hands)
        open_hands = [i for i, share in enumerate(wanted) if share > 0]
        for cluster in clusters:
            emptiest = min(open_hands, key=lambda i: filled[i] / wanted[i])
            filled[emptiest] += len(cluster)
            hands[emptiest].extend(cluster)
    for hand in hands:
        if {s.positive for s in hand} != {False, True}:
            raise DatasetError("too few subjects: one side of the split would lack a truth")
        hand.sort(key=lambda s: s.path)
    return hands


def write_split(split: Split, file: Path) -> None:
    """Write a split as JSON: the paths of both sides with the SHA-256 of each file."""
    sides = {"train": split.train, "heldout": split.heldout}
    listed = {side: {s.path: s.sha256 for s in group} for side, group in sides.items()}
    file.write_text(json.dumps(listed, indent=0) + "\n", encoding="utf-8")


def read_split(file: Path, samples: Sequence[Sample]) -> Split:
    """Read a split back and find its samples.

    Raises:
        DatasetError: ``samples`` are not the ones that were split, or the file is no split.
        LeakError: somebody changed the file so that its sides share a subject.
    """
    known = {sample.path: sample for sample in samples}
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        sides = {side: [known[path] for path in listed[side]] for side in ("train", "heldout")}
    except (OSError, ValueError, TypeError) as exc:
        raise DatasetError(f"{file} is no split that can be read") from exc
    except KeyError as exc:
        raise DatasetError(f"{file} names {exc}, which the data set does not have") from exc
    for side, group in sides.items():
        changed = [sample.path for sample in group if listed[side][sample.path] != sample.sha256]
        if changed:
            raise DatasetError(f"{changed[0]} is not the file that was split")
    return Split(sides["train"], sides["heldout"])
