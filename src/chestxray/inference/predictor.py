"""The predictor: a bundle, running.

``Predictor`` holds one ONNX Runtime session and no other state, so any number of threads may share
it. Evidence and features are outputs of the same pass as the logit; nothing is computed twice.

Does not: decode files, refuse an input (it says ``accepted`` and leaves the rest to its caller),
or read the environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from chestxray.errors import BundleDamagedError, UnknownOperatingPointError
from chestxray.imaging import Radiograph, to_input
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.bundle import BUNDLED, Bundle, Manifest, read_bundle
from chestxray.inference.input_check import FeatureModel
from chestxray.inference.probability import calibrated_logit, logit_of, sigmoid

REFERENCE_TOLERANCE = 0.5
"""How far, in logits, a reference answer may lie from the manifest's. Processors without 8-bit dot
products (VNNI) round and saturate int8 sums differently, by 0.1 to 0.3; a library that computes
something else, or a model with other weights, is off by far more."""

CHUNK = 16
"""Inputs per pass: more gain no speed on a CPU and cost memory in the first layers."""

OUTPUTS = ("logit", "evidence", "features")

_SESSION_ERRORS = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

Label = Literal["NORMAL", "PNEUMONIA"]


class NetworkAnswers(NamedTuple):
    """What the network says of N inputs, before any calibration, all float32.

    ``logit`` (N,), ``evidence`` (N, h, w) with ``logit = evidence.mean((1, 2)) + bias``, and
    ``features`` (N, C), the pooled last feature map.
    """

    logit: NDArray[np.float32]
    evidence: NDArray[np.float32]
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputCheckResult:
    """``score`` in [0, 1], higher is more like a chest radiograph."""

    accepted: bool
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one radiograph.

    ``probability`` is the calibrated one of PNEUMONIA; the label is PNEUMONIA from ``threshold``
    up. ``uncertain`` means that the calibrated logit lies within the manifest's margin of the
    threshold's. ``evidence`` (h, w) float32 is signed, in units of the uncalibrated ``logit``.
    """

    label: Label
    probability: float
    threshold: float
    operating_point: str
    uncertain: bool
    input_check: InputCheckResult
    logit: float
    evidence: NDArray[np.float32]


class Predictor:
    """A loaded bundle; thread-safe. Make one with :meth:`load`."""

    def __init__(self, bundle: Bundle, session: ort.InferenceSession) -> None:
        self.manifest: Manifest = bundle.manifest
        self.bundle_sha256: str = bundle.sha256
        self._session = session
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
        bundle = read_bundle(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors; what can go wrong is raised, and said in one line
        try:
            session = ort.InferenceSession(
                bundle.model, options, providers=["CPUExecutionProvider"]
            )
            predictor = cls(bundle, session)
            predictor._check_signature()
            predictor._check_reference_answers()
        except _SESSION_ERRORS as exc:
            first_line = str(exc).strip().partition("\n")[0]
            raise BundleDamagedError(f"the model in {folder} does not run: {first_line}") from exc
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
            inputs = [
                to_input(
                    radiograph.pixels,
                    side_px=prepare.side_px,
                    mean=prepare.mean,
                    std=prepare.std,
                )
                for radiograph in radiographs[start : start + CHUNK]
            ]
            predictions += self._predictions(self.predict_inputs(np.stack(inputs)), name, threshold)
        return predictions

    def predict_inputs(self, inputs: NDArray[np.float32]) -> NetworkAnswers:
        """Inputs (N, 1, S, S) float32, normalised as the manifest says → the network's answers.

        Evidence and features come with every pass; there is no cheaper way to ask for the logit.
        """
        if len(inputs) == 0:
            h, w = self.manifest.evidence.shape
            n_features = len(self.manifest.input_check.mean)
            empty = ((0,), (0, h, w), (0, n_features))
            return NetworkAnswers(*(np.empty(shape, np.float32) for shape in empty))
        passes = [
            self._session.run(OUTPUTS, {"input": inputs[start : start + CHUNK]})
            for start in range(0, len(inputs), CHUNK)
        ]
        return NetworkAnswers(*(np.concatenate(parts) for parts in zip(*passes, strict=True)))

    def operating_point(self, name: str | None = None) -> tuple[str, float]:
        """The name and the threshold of an operating point, the manifest's default for ``None``.

        Raises:
            UnknownOperatingPointError: the manifest has no point of that name.
        """
        points = self.manifest.operating_points
        name = self.manifest.default_operating_point if name is None else name
        if name not in points:
            raise UnknownOperatingPointError(
                f"the bundle has no such operating point; it has: {', '.join(points)}"
            )
        return name, points[name].threshold

    def _predictions(
        self, answers: NetworkAnswers, name: str, threshold: float
    ) -> list[Prediction]:
        calibrated = calibrated_logit(answers.logit, self.manifest.calibration)
        probability = sigmoid(calibrated)
        uncertain = np.abs(calibrated - logit_of(threshold)) < self.manifest.uncertainty.margin
        score = self._feature_model.score(answers.features)
        accepted = score >= self.manifest.input_check.threshold
        return [
            Prediction(
                label="PNEUMONIA" if probability[i] >= threshold else "NORMAL",
                probability=float(probability[i]),
                threshold=threshold,
                operating_point=name,
                uncertain=bool(uncertain[i]),
                input_check=InputCheckResult(bool(accepted[i]), float(score[i])),
                logit=float(answers.logit[i]),
                evidence=answers.evidence[i],
            )
            for i in range(len(probability))
        ]

    def _check_signature(self) -> None:
        side_px = self.manifest.preprocessing.side_px
        inputs = {node.name: node.shape[1:] for node in self._session.get_inputs()}
        if inputs != {"input": [1, side_px, side_px]}:
            raise BundleDamagedError(
                f"the model's inputs are {inputs}, not 'input' (N, 1, {side_px}, {side_px})"
            )
        outputs = {node.name for node in self._session.get_outputs()}
        if not outputs.issuperset(OUTPUTS):
            raise BundleDamagedError(f"the model's outputs are {sorted(outputs)}, not {OUTPUTS}")

    def _check_reference_answers(self) -> None:
        prepare = self.manifest.preprocessing
        references = self.manifest.reference_answers
        side_px = prepare.side_px
        inputs = [
            to_input(
                synthetic_radiograph(reference.seed, side_px),
                side_px=side_px,
                mean=prepare.mean,
                std=prepare.std,
            )
            for reference in references
        ] or [np.zeros((1, side_px, side_px), np.float32)]
        answers = self.predict_inputs(np.stack(inputs))
        n_features = len(self.manifest.input_check.mean)
        expected = (
            (len(inputs),),
            (len(inputs), *self.manifest.evidence.shape),
            (len(inputs), n_features),
        )
        shapes = tuple(answer.shape for answer in answers)
        if shapes != expected:
            raise BundleDamagedError(
                f"the model answers {len(inputs)} inputs with shapes {shapes}, "
                f"where its manifest says {expected}"
            )
        for reference, logit in zip(references, answers.logit, strict=False):
            if not abs(float(logit) - reference.logit) <= REFERENCE_TOLERANCE:
                raise BundleDamagedError(
                    f"this machine computes a logit of {logit:.2f} for reference input "
                    f"{reference.seed}, where the bundle says {reference.logit:.2f}"
                )
