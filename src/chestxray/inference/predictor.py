"""The predictor: a bundle, running.

``Predictor`` holds a network and no other state, so any number of threads may share it.

Does not: decode files, refuse a radiograph (it says ``accepted`` and leaves the rest to
``assessment``), or read the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chestxray.errors import BundleDamagedError
from chestxray.imaging import Radiograph, normalise, resize, to_input
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.bundle import BUNDLED, Bundle, Manifest, read_bundle
from chestxray.inference.input_check import FeatureModel
from chestxray.inference.network import CHUNK, NetworkAnswers, OnnxNetwork
from chestxray.inference.polarity import is_inverted
from chestxray.inference.probability import calibrated_logit, logit_of, sigmoid

INVERTED = "the grey levels are inverted (air is bright): the negative was read instead"

REFERENCE_TOLERANCE = 0.5
"""How far, in logits, a reference answer may lie from the manifest's. Processors without 8-bit dot
products (VNNI) round and saturate int8 sums differently, by 0.1 to 0.3; a library that computes
something else, or a model with other weights, is off by far more."""


@dataclass(frozen=True, slots=True)
class InputCheckResult:
    """``score`` in [0, 1], higher is more like a chest radiograph."""

    accepted: bool
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one radiograph.

    ``probability`` is the calibrated one of the bundle's finding; ``label`` is the positive one of
    its two from ``threshold`` up, and ``positive`` says so. ``uncertain`` means that the calibrated
    logit lies within the manifest's margin of the threshold's. ``inverted`` means that the grey
    levels were the wrong way round and the picture was read as its negative. ``evidence`` (h, w)
    float32 is signed, in units of the uncalibrated ``logit``. ``warnings`` are what a reader should
    know of the picture, the radiograph's own first.
    """

    label: str
    positive: bool
    probability: float
    threshold: float
    operating_point: str
    uncertain: bool
    inverted: bool
    input_check: InputCheckResult
    logit: float
    evidence: NDArray[np.float32]
    warnings: tuple[str, ...] = ()


class Predictor:
    """A loaded bundle; thread-safe. Make one with :meth:`load`."""

    def __init__(self, bundle: Bundle, network: OnnxNetwork) -> None:
        self.manifest: Manifest = bundle.manifest
        self.bundle_sha256: str = bundle.sha256
        self._network = network
        self._feature_model = FeatureModel(bundle.manifest.input_check)

    @classmethod
    def load(cls, folder: Path = BUNDLED, *, threads: int = 1) -> Predictor:
        """Read the bundle in ``folder`` and make sure that it computes what its manifest says.

        ``threads`` is the number of cores one pass may use. The manifest's reference inputs are
        answered once; that also warms the session.

        Raises:
            BundleError: the bundle is missing, damaged or of another version, its model is no
                model or has other inputs and outputs, or a reference answer is off by more than
                ``REFERENCE_TOLERANCE``.
        """
        return cls.of(read_bundle(folder), threads=threads)

    @classmethod
    def of(cls, bundle: Bundle, *, threads: int = 1) -> Predictor:
        """As :meth:`load`, for a bundle that has been read.

        Raises:
            BundleDamagedError: as :meth:`load`.
        """
        predictor = cls(bundle, OnnxNetwork(bundle.model, threads=threads))
        predictor._check_reference_answers()
        return predictor

    def predict(
        self, radiographs: Sequence[Radiograph], operating_point: str | None = None
    ) -> list[Prediction]:
        """Answer for each radiograph, in the order given, accepted by the input check or not.

        Raises:
            UnknownOperatingPointError: the manifest has no point of that name.
        """
        name, threshold = self.operating_point(operating_point)
        prepare = self.manifest.preprocessing
        predictions: list[Prediction] = []
        for start in range(0, len(radiographs), CHUNK):
            chunk = radiographs[start : start + CHUNK]
            pictures = [resize(radiograph.pixels, prepare.side_px) for radiograph in chunk]
            inverted = [is_inverted(picture, self.manifest.polarity) for picture in pictures]
            inputs = [
                normalise(1 - picture if negative else picture, mean=prepare.mean, std=prepare.std)
                for picture, negative in zip(pictures, inverted, strict=True)
            ]
            answers = self._network(np.stack(inputs))
            warnings = [
                (*radiograph.warnings, INVERTED) if negative else radiograph.warnings
                for radiograph, negative in zip(chunk, inverted, strict=True)
            ]
            predictions += self._predictions(answers, inverted, warnings, name, threshold)
        return predictions

    def operating_point(self, name: str | None = None) -> tuple[str, float]:
        """As :meth:`Manifest.operating_point`."""
        return self.manifest.operating_point(name)

    def _predictions(
        self,
        answers: NetworkAnswers,
        inverted: list[bool],
        warnings: list[tuple[str, ...]],
        name: str,
        threshold: float,
    ) -> list[Prediction]:
        calibrated = calibrated_logit(answers.logit, self.manifest.calibration)
        probability = sigmoid(calibrated)
        uncertain = np.abs(calibrated - logit_of(threshold)) < self.manifest.uncertainty.margin
        score = self._feature_model.score(answers.features)
        accepted = score >= self.manifest.input_check.threshold
        positive = probability >= threshold
        labels = self.manifest.finding.labels
        return [
            Prediction(
                label=labels.positive if positive[i] else labels.negative,
                positive=bool(positive[i]),
                probability=float(probability[i]),
                threshold=threshold,
                operating_point=name,
                uncertain=bool(uncertain[i]),
                inverted=inverted[i],
                input_check=InputCheckResult(bool(accepted[i]), float(score[i])),
                logit=float(answers.logit[i]),
                evidence=answers.evidence[i],
                warnings=warnings[i],
            )
            for i in range(len(probability))
        ]

    def _check_reference_answers(self) -> None:
        prepare = self.manifest.preprocessing
        if self._network.input_shape != (1, prepare.side_px, prepare.side_px):
            raise BundleDamagedError(
                f"the model's inputs are {self._network.input_shape}, "
                f"where its manifest says {prepare.side_px} px"
            )
        references = self.manifest.reference_answers
        inputs = [
            to_input(
                synthetic_radiograph(reference.seed, prepare.side_px),
                side_px=prepare.side_px,
                mean=prepare.mean,
                std=prepare.std,
            )
            for reference in references
        ]
        answers = self._network(np.stack(inputs))
        shapes = tuple(answer.shape[1:] for answer in answers)
        expected = ((), self.manifest.evidence.shape, (self.manifest.input_check.n_features,))
        if shapes != expected:
            raise BundleDamagedError(
                f"the model's answers have the shapes {shapes}, where its manifest says {expected}"
            )
        for reference, logit in zip(references, answers.logit, strict=True):
            if not abs(float(logit) - reference.logit) <= REFERENCE_TOLERANCE:
                raise BundleDamagedError(
                    f"this machine computes a logit of {logit:.2f} for reference input "
                    f"{reference.seed}, where the bundle says {reference.logit:.2f}"
                )
