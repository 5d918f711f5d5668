"""``chestxray calibrate``: a site's own radiographs decide what the logit means there.

The model stays what it is; calibration and operating points are fitted again, and the result is a
bundle of its own with an identity of its own. Runs without PyTorch.

Does not: correct a model that orders the site's radiographs wrongly (its AUROC stays the same).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from chestxray.dataset import read_dataset
from chestxray.errors import EmptyDatasetError
from chestxray.evaluation.evaluate import score_samples
from chestxray.inference import Predictor, read_bundle, write_bundle
from chestxray.inference.bundle import Uncertainty
from chestxray.learning.calibration import fit_calibration, fit_operating_points


def recalibrate(
    data: Path,
    bundle: Path,
    out: Path,
    *,
    threads: int,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> str:
    """Fit calibration and operating points to the folder ``data`` and write the bundle ``out``.

    Returns the new bundle's SHA-256. Unreadable files are left out; radiographs that the input
    check refuses are used, since the folder's owner says that they are radiographs.

    Raises:
        EmptyDatasetError: no readable radiographs of one of the truths.
        BundleError: ``bundle`` cannot be read.
    """
    predictor = Predictor.load(bundle)
    samples = read_dataset(data)
    scored = score_samples(
        predictor,
        samples,
        threads=threads,
        on_scored=lambda done: progress("calibrate", done, len(samples)),
    )
    read = [(s.sample, s.prediction) for s in scored if s.prediction is not None]
    truth = np.array([sample.truth == "PNEUMONIA" for sample, _ in read], dtype=bool)
    if not 0 < truth.sum() < len(truth):
        raise EmptyDatasetError("calibration needs readable radiographs of both truths")
    logits = np.array([prediction.logit for _, prediction in read])
    old = predictor.manifest
    site = data.resolve().name
    calibration = fit_calibration(logits, truth, f"{site} (n = {len(read)})")
    # The margin is a distance between calibrated logits; between logits it stays what it was.
    scale = old.calibration.temperature / calibration.temperature
    manifest = old.model_copy(
        update={
            "name": f"{old.name}, calibrated on {site}",
            "calibration": calibration,
            "operating_points": fit_operating_points(logits, truth, calibration, len(read)),
            "uncertainty": Uncertainty(
                margin=old.uncertainty.margin * scale, rule=old.uncertainty.rule
            ),
            "metrics": [],  # the old ones were measured at other thresholds; evaluate on others
        }
    )
    return write_bundle(out, manifest, read_bundle(bundle).model)
