"""Whether the evidence lies where the finding is.

Judged is what a heatmap would show: the cells, enlarged as it enlarges them, over the picture
stretched to a square (of ``SIDE_PX``, as lung masks have it). Three questions are asked of the
radiographs with the finding:

- *Boxes.* Does the peak lie in a box that a reader drew (pointing game, Zhang et al. 2018), and how
  well does evidence rank the pixels in boxes above the others (average precision, the area under
  the precision-recall curve), within each radiograph and in one pool of
  all, where one scale of evidence is asked of them? Beside them stand what chance reaches, one
  point for all radiographs, and the mean of the others' boxes as a map: none of these looks at the
  radiograph.
- *Lungs.* Which share of the evidence for the finding lies within the lungs? This is asked of
  radiographs without the finding, too.
- *Deletion.* How much of the logit is lost when a patch of a radiograph without the finding covers
  the peak, against a patch in a random place? A map may lie in the boxes and still not say what the
  network looks at.

Intervals are bootstrapped by subject, and figures that are compared see the same draws.

Does not: decide whether a heatmap is shown (the manifest does), or say that a box is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from chestxray.dataset import Box, Sample
from chestxray.dataset.lungs import SIDE_PX
from chestxray.evaluation.breakdown import Answered
from chestxray.evaluation.evaluate import Scored, answered_of
from chestxray.evaluation.metrics import Bools, Figure, Floats, Measured, mean, ratio, resample
from chestxray.evaluation.radiographs import read_radiograph
from chestxray.imaging import Radiograph, resize
from chestxray.inference import Prediction, Predictor, enlarge

LEVELS = 4000
"""Average precision ranks pixels in so many steps, each of about as many pixels."""

MAX_COVERED = 100
"""Radiographs with the finding that the deletion test covers, drawn at random beyond that."""

PATCH_SHARE = 1 / 4
"""The covering patch's side as a share of the picture's, so a sixteenth of the area, as much as a
usual box has. It is the same for every network, so that those of smaller cells can be compared."""

RANDOM_PLACES = 4
"""Patches in random places, whose mean loss is compared with that at the peak."""

Cells = NDArray[np.float32]
Pixels = NDArray[np.float32]


def evidence_of(
    predictor: Predictor,
    scored: Sequence[Scored],
    *,
    boxes: Mapping[str, Sequence[Box]] | None = None,
    lungs: Mapping[str, Bools] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """What ``report.json`` has under ``evidence``; None stands for what was not given.

    ``boxes`` are in pixels of the stored file, ``lungs`` (``SIDE_PX``, ``SIDE_PX``) bool over the
    picture stretched to a square; both by ``Sample.path``, for those that have them. The
    radiographs that are covered, and those that cover them, are read again.
    """
    answered = answered_of(scored)
    negative, positive = (answered.part((answered.truth == truth).tolist()) for truth in (0, 1))
    return {
        "side_px": SIDE_PX,
        "peaks": _peaks(positive),
        "boxes": None if boxes is None else evidence_in_boxes(scored, boxes),
        "lungs": None
        if lungs is None
        else {"negative": _in_lungs(negative, lungs), "positive": _in_lungs(positive, lungs)},
        "deletion": deletion(predictor, positive, negative, lungs or {}, threads=threads),
    }


def evidence_in_boxes(
    scored: Sequence[Scored], boxes: Mapping[str, Sequence[Box]]
) -> dict[str, Any]:
    """What ``report.json`` has under ``evidence.boxes``; counts of 0 alone where none has any."""
    answered = answered_of(scored)
    sizes_px = {s.sample.path: s.size_px for s in scored if s.size_px is not None}
    return _in_boxes(answered.part(answered.truth.tolist()), boxes, sizes_px)


def _evidence(answered: Answered) -> list[Cells]:
    return [prediction.evidence for prediction in answered.predictions]


def _peaks(positive: Answered) -> dict[str, Any]:
    """How often the peak lies in the lowest quarter, which shows the abdomen more than lungs."""
    lowest = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    lowest[-SIDE_PX // 4 :] = True
    hits = np.array([hit(enlarge(cells, SIDE_PX), lowest) for cells in _evidence(positive)])
    share = resample(partial(mean, hits), positive.subjects)
    return {**positive.counts, "in_lowest_quarter": share.figure()}


# --- boxes


def _in_boxes(
    positive: Answered,
    boxes: Mapping[str, Sequence[Box]],
    sizes_px: Mapping[str, tuple[int, int]],
) -> dict[str, Any]:
    boxed = positive.part([bool(boxes.get(sample.path)) for sample in positive.samples])
    paths = [sample.path for sample in boxed.samples]
    if not paths:
        return boxed.counts
    inside = np.stack([box_map(boxes[path], *sizes_px[path]) for path in paths])
    findings = Counter(box.finding for path in paths for box in boxes[path])
    return {
        **boxed.counts,
        "n_boxes": findings.total(),
        "findings": dict(findings.most_common()),
        **against_boxes(_evidence(boxed), inside, boxed.subjects),
    }


def box_map(boxes: Iterable[Box], width_px: int, height_px: int) -> Bools:
    """Which of ``SIDE_PX`` squared pixels have their centre in a box of a file of that size."""
    centres = (np.arange(SIDE_PX) + 0.5) / SIDE_PX
    x, y = centres * width_px, centres[:, np.newaxis] * height_px
    inside = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    for box in boxes:
        across, down = (x >= box.x) & (x < box.x + box.w), (y >= box.y) & (y < box.y + box.h)
        inside |= across & down
    return inside


def against_boxes(
    evidence: Sequence[Cells], inside: Bools, subjects: Sequence[str]
) -> dict[str, Any]:
    """Pointing game and pixel average precision (AUPRC) of ``evidence``, N × (h, w), and of less.

    ``auprc`` is the mean of each radiograph's own. ``inside`` (N, S, S) says which pixels lie in
    boxes. ``chance`` is the mean area of boxes, what all figures are for a map of noise. The best
    fixed point is the one that lies in the boxes of the most radiographs, and flatters, since it is
    chosen on these. The location prior of a radiograph is the mean box map of all other subjects.
    """
    side_px = inside.shape[-1]
    at = np.unravel_index(inside.mean(axis=0).argmax(), (side_px, side_px))
    fixed = inside[:, at[0], at[1]].astype(float)

    def shown(number: int) -> Floats:
        return enlarge(evidence[number], side_px)

    prior = _prior(inside, subjects)
    hits, by_prior = (
        np.array([hit(map_of(number), region) for number, region in enumerate(inside)])
        for map_of in (shown, prior)
    )
    shares = {
        "chance": inside.mean(axis=(1, 2)),
        "pointing": hits,
        "best_fixed_point": fixed,
        "pointing_above_fixed_point": hits - fixed,
        "prior_pointing": by_prior,
        "auprc": _average_precisions(shown, inside),
        "prior_auprc": _average_precisions(prior, inside),
    }
    return {
        **{name: resample(partial(mean, of), subjects).figure() for name, of in shares.items()},
        "best_fixed_point_at": {
            name: (int(pixel) + 0.5) / side_px for name, pixel in zip("yx", at, strict=True)
        },
        "auprc_pooled": _pooled_average_precision(shown, inside, subjects),
        "prior_auprc_pooled": _pooled_average_precision(prior, inside, subjects),
    }


def hit(shown: Floats, region: Bools) -> float:
    """1 where the peak of a map (S, S) lies in ``region``; of several peaks, the share that does.

    So a map that is the same everywhere, and points at nothing, gets the region's area.
    """
    return float(region[shown == shown.max()].mean())


def _prior(inside: Bools, subjects: Sequence[str]) -> Callable[[int], Floats]:
    subject = np.asarray(subjects)
    total = inside.sum(axis=0)

    def of_the_others(number: int) -> Floats:
        own = subject == subject[number]
        others: Floats = (total - inside[own].sum(axis=0)) / max(1, (~own).sum())
        return others

    return of_the_others


def _average_precisions(map_of: Callable[[int], Floats], inside: Bools) -> Floats:
    """Of each radiograph's pixels, (N,)."""
    return np.array(
        [
            average_precision_score(region.ravel(), map_of(number).ravel())
            for number, region in enumerate(inside)
        ]
    )


def _pooled_average_precision(
    map_of: Callable[[int], Floats], inside: Bools, subjects: Sequence[str]
) -> Figure:
    """Over the pixels of all radiographs in one pool, so one scale of evidence is asked of all.

    A radiograph weighs as many pixels as lie in its boxes. Pixels of one level tie.
    """
    within, without = _levels(map_of, inside)

    def measure(weights: Floats) -> Measured:
        found = np.cumsum(weights @ within, axis=-1)
        ranked = found + np.cumsum(weights @ without, axis=-1)
        gained = np.diff(found, axis=-1, prepend=0)
        return ratio((gained * found / np.maximum(ranked, 1)).sum(axis=-1), found[..., -1])

    return resample(measure, subjects).figure()


def _levels(map_of: Callable[[int], Floats], inside: Bools) -> tuple[Floats, Floats]:
    """Pixels in boxes and outside at each level, the highest first: twice (N, levels)."""
    every = inside.size // 1_000_000 | 1  # enough to place the levels
    sampled = np.concatenate([map_of(number).ravel()[::every] for number in range(len(inside))])
    edges = np.unique(np.quantile(sampled, np.linspace(0, 1, LEVELS)))[::-1]
    counts = np.zeros((2, len(inside), len(edges) + 1))
    for number, region in enumerate(inside):
        level = len(edges) - np.searchsorted(edges[::-1], map_of(number).ravel(), side="right")
        for side, chosen in enumerate((region, ~region)):
            counts[side, number] = np.bincount(level[chosen.ravel()], minlength=len(edges) + 1)
    return counts[0], counts[1]


# --- lungs


def _in_lungs(answered: Answered, lungs: Mapping[str, Bools]) -> dict[str, Any]:
    """Share of the evidence for the finding that lies in the lungs, beside the lungs' area.

    The mean over radiographs; those without any such evidence have no share and are left out.
    """
    shares = np.array(
        [
            share_within(prediction.evidence, lungs[sample.path])
            if sample.path in lungs
            else np.nan
            for sample, prediction in zip(answered.samples, answered.predictions, strict=True)
        ]
    )
    part = answered.part(np.isfinite(shares).tolist())
    if not part.samples:
        return part.counts
    area = np.array([lungs[sample.path].mean() for sample in part.samples])
    return {
        **part.counts,
        "share": resample(partial(mean, shares[np.isfinite(shares)]), part.subjects).figure(),
        "area": resample(partial(mean, area), part.subjects).figure(),
    }


def share_within(evidence: Cells, region: Bools) -> float:
    """Share of the evidence for the finding that lies in ``region`` (S, S); NaN of none."""
    above = np.clip(enlarge(evidence, len(region)), 0, None)
    return float(ratio(above[region].sum(), above.sum()))


# --- deletion


def deletion(
    predictor: Predictor,
    positive: Answered,
    negative: Answered,
    lungs: Mapping[str, Bools],
    *,
    threads: int = 1,
) -> dict[str, Any]:
    """Mean logit, uncalibrated, lost under a patch at the peak, in random places, over the lungs.

    What covers is the same place of a radiograph without the finding, drawn at random, brought to
    the covered one's mean and standard deviation and blended in at the rim. ``over_lungs`` covers
    all of the lungs, of those that have a mask, and is None where none has. The ratio is None where
    covering a random place costs nothing.
    """
    random = np.random.default_rng(0)
    covered = positive.part((random.permutation(len(positive.samples)) < MAX_COVERED).tolist())
    chosen = random.integers(len(negative.samples), size=len(covered.samples))
    seeds = random.integers(2**63, size=len(covered.samples))  # so threads change nothing

    def lost(number: int) -> Floats:
        sample, prediction, by = (
            covered.samples[number],
            covered.predictions[number],
            chosen[number],
        )
        return _lost(
            predictor,
            _seen(predictor, sample, prediction),
            _seen(predictor, negative.samples[by], negative.predictions[by]),
            prediction.evidence,
            lungs.get(sample.path),
            np.random.default_rng(seeds[number]),
        )

    with ThreadPoolExecutor(threads) as pool:
        at_peak, at_random, over_lungs = np.stack(
            list(pool.map(lost, range(len(covered.samples)))), axis=1
        )
    masked = np.isfinite(over_lungs)
    subjects = covered.subjects

    def times(weights: Floats) -> Measured:
        return ratio(mean(at_peak, weights), mean(at_random, weights))

    with_lungs = covered.part(masked.tolist())
    return {
        **covered.counts,
        "patch_share": PATCH_SHARE,
        "at_peak": resample(partial(mean, at_peak), subjects).figure(),
        "at_random": resample(partial(mean, at_random), subjects).figure(),
        "peak_over_random": resample(times, subjects).figure(),
        "n_with_lungs": int(masked.sum()),
        "over_lungs": resample(partial(mean, over_lungs[masked]), with_lungs.subjects).figure()
        if masked.any()
        else None,
    }


def _seen(predictor: Predictor, sample: Sample, prediction: Prediction) -> Radiograph:
    """The radiograph as the network sees it: (side_px, side_px), and with air dark."""
    radiograph = read_radiograph(sample.file, predictor.manifest)
    pixels = resize(radiograph.pixels, predictor.manifest.preprocessing.side_px)
    return replace(radiograph, pixels=1 - pixels if prediction.inverted else pixels)


def _lost(
    predictor: Predictor,
    radiograph: Radiograph,
    covering: Radiograph,
    evidence: Cells,
    lungs: Bools | None,
    random: np.random.Generator,
) -> Floats:
    """(3,): logit lost at the peak, in random places on average, and over the lungs or NaN."""
    pixels = radiograph.pixels
    cover = matched(covering.pixels, pixels)
    side_px = len(pixels)
    size_px = round(PATCH_SHARE * side_px)
    peak = np.unravel_index(enlarge(evidence, side_px).argmax(), pixels.shape)
    corners = [
        np.clip(np.array(peak) - size_px // 2, 0, side_px - size_px),
        *random.integers(side_px - size_px + 1, size=(RANDOM_PLACES, 2)),
    ]
    blends = [patch(side_px, size_px, *corner) for corner in corners]
    if lungs is not None:
        blends.append(resize(lungs.astype(np.float32), side_px))
    pictures = [pixels, *(pixels + blend * (cover - pixels) for blend in blends)]
    answers = predictor.predict([replace(radiograph, pixels=picture) for picture in pictures])
    before, *after = (answer.logit for answer in answers)
    lost = before - np.array(after)
    over_lungs = np.nan if lungs is None else lost[-1]
    return np.array([lost[0], lost[1 : 1 + RANDOM_PLACES].mean(), over_lungs])


def matched(pixels: Pixels, to: Pixels) -> Pixels:
    """``pixels`` in [0, 1] with the mean and standard deviation of ``to``, clipped to [0, 1]."""
    spread = to.std() / max(float(pixels.std()), 1e-6)
    levelled: Pixels = np.clip((pixels - pixels.mean()) * spread + to.mean(), 0, 1)
    return levelled


def patch(side_px: int, size_px: int, top: int, left: int) -> Pixels:
    """(side_px, side_px): 1 within a square, falling to 0 over the outer quarter of its sides."""
    steps = np.arange(size_px)
    ramp = np.minimum(1, np.minimum(steps + 1, size_px - steps) / (size_px / 4))
    blend = np.zeros((side_px, side_px), np.float32)
    blend[top : top + size_px, left : left + size_px] = np.outer(ramp, ramp)
    return blend
