"""From a file's bytes to the answer's model: one function for the service and the command line.

Does not: know of HTTP or of terminals, or take more than one file at a time.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from chestxray.errors import (
    ChestXrayError,
    LimitError,
    NotAChestRadiographError,
    RefusedError,
    UnreadableError,
)
from chestxray.imaging import Limits, Radiograph, read
from chestxray.inference import Prediction, Predictor, render_heatmap, render_preview
from chestxray.service.problems import problem_of
from chestxray.service.schemas import (
    AnsweredFile,
    BatchElement,
    FailedFile,
    InputCheckAnswer,
    ModelAnswer,
    PredictionAnswer,
    PredictOptions,
    RadiographAnswer,
)

Stage = Literal["decode", "infer", "render"]
Stopwatch = Callable[[Stage], AbstractContextManager[object]]
"""Times a stage of an answer: ``with stopwatch("decode"): ...``."""

NOT_A_CHEST = "this does not look like a frontal chest radiograph"


def untimed(_: Stage) -> AbstractContextManager[None]:
    """The stopwatch of who does not want to know."""
    return nullcontext()


def answer(
    predictor: Predictor,
    data: bytes,
    options: PredictOptions,
    limits: Limits,
    stopwatch: Stopwatch = untimed,
) -> PredictionAnswer:
    """Decode one file and answer as ``options`` ask.

    Raises:
        UnreadableError, LimitError: from :func:`chestxray.imaging.read`.
        RefusedError: the picture is too small, or the input check did not accept it and
            ``options.input_check`` is ``refuse``; with ``warn`` that becomes a warning.
        UnknownOperatingPointError: the bundle has no such point.
    """
    with stopwatch("decode"):
        radiograph = read(data, limits)
    with stopwatch("infer"):
        (prediction,) = predictor.predict([radiograph], options.operating_point)
    warnings = [*prediction.warnings]
    if not prediction.input_check.accepted:
        if options.input_check == "refuse":
            raise NotAChestRadiographError(NOT_A_CHEST, prediction.input_check.score)
        warnings.append(NOT_A_CHEST)
    with stopwatch("render"):
        return _answer(predictor, radiograph, prediction, options, warnings)


def batch_element(
    filename: str,
    predictor: Predictor,
    data: bytes,
    options: PredictOptions,
    limits: Limits,
    stopwatch: Stopwatch = untimed,
) -> BatchElement:
    """The element of a batch for one file: :func:`answer`, or the file's own problem.

    Raises:
        UnknownOperatingPointError: that is not the file's fault, so it is not its element.
    """
    try:
        prediction = answer(predictor, data, options, limits, stopwatch)
    except (UnreadableError, LimitError, RefusedError) as exc:
        return failed_element(filename, exc)
    return AnsweredFile(filename=filename, prediction=prediction)


def failed_element(filename: str, error: ChestXrayError) -> BatchElement:
    """The element of a batch for a file that could not be answered."""
    return FailedFile(filename=filename, error=problem_of(error))


def _answer(
    predictor: Predictor,
    radiograph: Radiograph,
    prediction: Prediction,
    options: PredictOptions,
    warnings: list[str],
) -> PredictionAnswer:
    manifest = predictor.manifest
    heatmap = evidence = preview = None
    if options.heatmap:
        heatmap = _data_url(render_heatmap(prediction.evidence, manifest.evidence.scale))
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
        preview=preview,
        warnings=warnings,
        model=ModelAnswer(name=manifest.name, bundle_sha256=predictor.bundle_sha256),
    )


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
