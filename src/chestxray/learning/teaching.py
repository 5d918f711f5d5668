"""Teachers: bundles whose probability of the finding a network learns beside the truth.

Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent", arXiv
2106.05237: a teacher is shown the very picture that the network is shown, augmented as it is, so it
answers anew in every epoch. It is asked through the same ``Predictor`` that serves.

Does not: judge held-out radiographs, or write (``training`` writes down which teachers it had).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from chestxray.dataset import Sample, Split, check_disjoint
from chestxray.errors import ConfigError, LeakError
from chestxray.evaluation.comparison import check_finding
from chestxray.evaluation.heldout import heldout_samples
from chestxray.imaging import Radiograph
from chestxray.inference import Bundle, Finding, Manifest, Predictor, read_bundle
from chestxray.learning.inputs import data_sha256


class Teachers:
    """Some bundles, asked together."""

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        self._bundles = bundles
        self._predictors = [Predictor.of(bundle) for bundle in bundles]

    @property
    def sha256s(self) -> tuple[str, ...]:
        """The identities of the bundles, in the order given."""
        return tuple(bundle.sha256 for bundle in self._bundles)

    @property
    def manifests(self) -> list[Manifest]:
        return [bundle.manifest for bundle in self._bundles]

    def probability(self, pixels: Tensor) -> Tensor:
        """The mean of the teachers' calibrated probabilities for pixels (B, 1, S, S), (B,)."""
        pictures = [
            Radiograph(picture, "PNG", picture.shape[1], picture.shape[0])
            for picture in pixels[:, 0].cpu().numpy()
        ]
        said = [[p.probability for p in teacher.predict(pictures)] for teacher in self._predictors]
        return torch.tensor(said, dtype=torch.float32, device=pixels.device).mean(0)


def read_teachers(folders: Sequence[str], finding: Finding) -> Teachers:
    """Read the bundles in ``folders`` and make sure that each one works here.

    Raises:
        BundleError: as ``Predictor.load``.
        ConfigError: one is of another finding than the network that is to learn.
    """
    bundles = [read_bundle(Path(folder)) for folder in folders]
    for bundle in bundles:
        check_finding(bundle.manifest, finding)
    return Teachers(bundles)


def require_unseen(teachers: Teachers, samples: Sequence[Sample], split: Split) -> None:
    """What a teacher was trained on, its pupil knows too: it must not judge the pupil.

    A teacher of other data passes. That it has none of our subjects cannot be proved.

    Raises:
        LeakError: a teacher was trained on subjects that ``split`` holds out, or on these data and
            does not say on which part of them.
    """
    for manifest in teachers.manifests:
        try:
            unseen = {s.path for s in heldout_samples(samples, [manifest])}
        except ConfigError as exc:
            if manifest.training.get("data_sha256") == data_sha256(samples):
                raise LeakError(f"the teacher {manifest.name}: {exc}") from exc
            continue
        check_disjoint([s for s in samples if s.path not in unseen], split.heldout)
