"""``chestxray calibrate``: a site's own radiographs decide what the logit means there.

The model stays what it is; calibration and operating points are updated, and the result is a bundle
of its own with an identity of its own. Its manifest says from how many of the site's radiographs on
that was better than leaving the bundle alone. Runs without PyTorch.

Does not: correct a model that orders the site's radiographs wrongly (its AUROC stays the same), or
refuse to write a bundle that is not shown to be better; it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset import Sample, counted, dataset_name, inseparable, read_dataset
from chestxray.errors import ConfigError, EmptyDatasetError
from chestxray.evaluation.evaluate import score_samples
from chestxray.inference import Manifest, Predictor, read_bundle, write_bundle
from chestxray.inference.bundle import Uncertainty
from chestxray.learning.learning_curve import RULE, BetterFrom, Step, better_from, learning_curve
from chestxray.learning.updating import update


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The bundle that was written, and whether the site's radiographs show that it is better."""

    bundle_sha256: str
    manifest: Manifest
    n: int
    curve: list[Step]
    better_from: BetterFrom


def recalibrate(
    data: Path | Sequence[Path],
    bundle: Path,
    out: Path,
    *,
    threads: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Recalibration:
    """Update calibration and operating points to the data set and write the bundle ``out``.

    Unreadable files are left out and ``say`` is told; radiographs that the input check refuses are
    used, since the data's owner says that they are radiographs.

    Raises:
        EmptyDatasetError: no readable radiographs of one of the truths.
        BundleError: ``bundle`` cannot be read.
        ConfigError: ``out`` is ``bundle``, which others may be serving.
    """
    if out.resolve() == bundle.resolve():
        raise ConfigError(f"{out} is the bundle to be calibrated: choose another folder")
    predictor = Predictor.load(bundle)
    samples = read_dataset(data, predictor.manifest.finding.labels, say=say)
    scored = score_samples(
        predictor,
        samples,
        threads=threads,
        on_scored=lambda done: progress("calibrate", done, len(samples)),
    )
    read = [(s.sample, s.prediction) for s in scored if s.prediction is not None]
    if unread := [f"{s.sample.path}: {s.error}" for s in scored if s.error is not None]:
        say(f"files that cannot be read, left out: {counted(unread)}")
    truth = np.array([sample.positive for sample, _ in read], dtype=bool)
    if not 0 < truth.sum() < len(truth):
        raise EmptyDatasetError("calibration needs readable radiographs of both truths")
    logits = np.array([prediction.logit for _, prediction in read])
    together = _cluster_of([sample for sample, _ in read])

    old = predictor.manifest
    site = dataset_name(data)
    name, threshold = predictor.operating_point()
    curve = learning_curve(old.calibration, threshold, name, logits, truth, together)
    pays = better_from(curve)
    facts = {
        "from_bundle_sha256": predictor.bundle_sha256,
        "site": site,
        "n": len(read),
        "n_subjects": len({sample.subject for sample, _ in read}),
        "curve": curve,
        "better_from": pays,
        "rule": RULE,
    }
    calibration, points = update(old.calibration, logits, truth, f"{site} (n = {len(read)})")
    # The margin is a distance between calibrated logits; between logits it stays what it was.
    scale = old.calibration.temperature / calibration.temperature
    manifest = old.model_copy(
        update={
            "name": f"{old.name}, calibrated on {site}",
            "calibration": calibration,
            "operating_points": points,
            "uncertainty": Uncertainty(
                margin=old.uncertainty.margin * scale, rule=old.uncertainty.rule
            ),
            "training": old.training | {"recalibration": facts},
            "metrics": [],  # the old ones were measured at other thresholds; evaluate on others
        }
    )
    identity = write_bundle(out, manifest, read_bundle(bundle).model)
    return Recalibration(identity, manifest, len(read), curve, pays)


def _cluster_of(samples: Sequence[Sample]) -> NDArray[np.int_]:
    """(N,): equal for samples that no draw may part, of one subject or tied by duplicates."""
    number = {s.path: i for i, cluster in enumerate(inseparable(samples)) for s in cluster}
    return np.array([number[sample.path] for sample in samples])
