"""The questions and answers of the API as pydantic models: what the OpenAPI document shows.

Does not: compute anything, or import FastAPI; the command line prints these models too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chestxray.inference import Label
from chestxray.inference.bundle import (
    Calibration,
    Evidence,
    OperatingPoint,
    Population,
    Preprocessing,
    ReferenceAnswer,
    Uncertainty,
)

Score = Annotated[float, Field(ge=0, le=1)]
PngDataUrl = Annotated[str, Field(pattern="^data:image/png;base64,")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class PredictOptions(_Model):
    """The query of ``/predict`` and ``/predict_batch``."""

    model_config = ConfigDict(extra="forbid")  # a misspelt question must not pass for no question

    operating_point: str | None = Field(
        None, description="named threshold to decide by; unset, the bundle's default"
    )
    heatmap: bool = Field(False, description="add a picture of the evidence, to lay over")
    evidence: bool = Field(False, description="add the evidence as numbers")
    preview: bool = Field(False, description="add what the network saw, as a grey PNG")
    input_check: Literal["refuse", "warn"] = Field(
        "refuse", description="what to do with a picture that is not like a chest radiograph"
    )


class InputCheckAnswer(_Model):
    """``score`` is higher for pictures more like a chest radiograph."""

    accepted: bool
    score: Score


class RadiographAnswer(_Model):
    """What is known of the file: its format by its bytes, its size in pixels when upright."""

    format: str
    width_px: int
    height_px: int


class ModelAnswer(_Model):
    """Which bundle answered; ``bundle_sha256`` is the SHA-256 of its manifest."""

    name: str
    bundle_sha256: str


class PredictionAnswer(_Model):
    """The answer for one radiograph. ``probability`` is the calibrated one of PNEUMONIA."""

    label: Label
    probability: Score
    threshold: Score
    operating_point: str
    uncertain: bool
    input_check: InputCheckAnswer
    radiograph: RadiographAnswer
    heatmap: PngDataUrl | None
    evidence: list[list[float]] | None
    preview: PngDataUrl | None
    warnings: list[str]
    model: ModelAnswer


class Problem(_Model):
    """Problem details (RFC 9457). ``code`` is stable; ``detail`` is for people and may change.

    ``request_id`` finds the request in the log; it is ``null`` on the command line.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None


class InputCheckProblem(Problem):
    """The picture is readable but not like a chest radiograph."""

    input_check: InputCheckAnswer


class AnsweredFile(_Model):
    """A file of a batch that was answered."""

    filename: str
    prediction: PredictionAnswer


class FailedFile(_Model):
    """A file of a batch that was not answered, and why."""

    filename: str
    error: InputCheckProblem | Problem


BatchElement = AnsweredFile | FailedFile


class BatchAnswer(_Model):
    """One element for each file, in the order sent."""

    results: list[BatchElement]
    succeeded: int
    failed: int


class InputCheckFacts(_Model):
    """The input check without its statistics."""

    threshold: Score
    rule: str


class Metadata(_Model):
    """What the manifest says of the bundle that answers, and the version of this software."""

    version: str
    bundle_sha256: str
    format: int
    name: str
    created: str
    model_sha256: str
    precision: Literal["int8", "fp32"]
    preprocessing: Preprocessing
    evidence: Evidence
    calibration: Calibration
    operating_points: dict[str, OperatingPoint]
    default_operating_point: str
    uncertainty: Uncertainty
    population: Population | None
    input_check: InputCheckFacts
    reference_answers: list[ReferenceAnswer]
    training: dict[str, Any]
    metrics: list[dict[str, Any]]


class Health(_Model):
    """The state of the process in a word."""

    status: Literal["alive", "ready"]


class PageSettings(_Model):
    """Settings that the reading page heeds."""

    demands_key: bool
    max_file_bytes: int
