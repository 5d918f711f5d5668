"""From an assessment to the answer's model: the same for the service and the command line.

Does not: know of HTTP or of terminals, or decide anything (``assessment`` has).
"""

from __future__ import annotations

import base64

from chestxray.assessment import Assessment
from chestxray.errors import ChestXrayError
from chestxray.inference import render_heatmap, render_preview
from chestxray.inference.rendering import NOT_VALIDATED
from chestxray.service.api.schemas import (
    AnsweredFile,
    BatchElement,
    FailedFile,
    ModelAnswer,
    PredictionAnswer,
    PredictOptions,
    RadiographAnswer,
)
from chestxray.service.http.problems import InputCheckAnswer, problem_of


def answer(assessment: Assessment, options: PredictOptions) -> PredictionAnswer:
    """The answer, with the pictures that ``options`` ask for.

    Raises:
        ChestXrayError: it was refused or unreadable, and why.
    """
    radiograph, prediction = assessment.answer
    predictor = assessment.assessor.predictor
    manifest = predictor.manifest
    heatmap = evidence = preview = None
    warnings = list(assessment.warnings)
    if options.heatmap:
        heatmap = _data_url(render_heatmap(prediction.evidence, manifest.evidence.scale))
        if not manifest.evidence.validated:
            warnings.append(NOT_VALIDATED)
    if options.evidence:
        evidence = prediction.evidence.astype(float).round(4).tolist()
    if options.preview:
        seen = 1 - radiograph.pixels if prediction.inverted else radiograph.pixels
        preview = _data_url(render_preview(seen, manifest.preprocessing.side_px))
    return PredictionAnswer(
        label=prediction.label,
        probability=prediction.probability,
        threshold=prediction.threshold,
        operating_point=prediction.operating_point,
        uncertain=prediction.uncertain,
        input_check=InputCheckAnswer(
            accepted=prediction.input_check.accepted, score=prediction.input_check.score
        ),
        radiograph=RadiographAnswer(
            format=radiograph.format,
            width_px=radiograph.width_px,
            height_px=radiograph.height_px,
        ),
        heatmap=heatmap,
        evidence=evidence,
        evidence_validated=manifest.evidence.validated,
        preview=preview,
        warnings=warnings,
        model=ModelAnswer(name=assessment.assessor.name, bundle_sha256=predictor.bundle_sha256),
    )


def batch_element(filename: str, assessment: Assessment, options: PredictOptions) -> BatchElement:
    """The element of a batch for one file: :func:`answer`, or the file's own problem."""
    if assessment.error is not None:
        return failed_element(filename, assessment.error)
    return AnsweredFile(filename=filename, prediction=answer(assessment, options))


def failed_element(filename: str, error: ChestXrayError) -> BatchElement:
    """The element of a batch for a file that could not be answered."""
    return FailedFile(filename=filename, error=problem_of(error))


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
