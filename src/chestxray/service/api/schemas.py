"""The questions and answers of the API as pydantic models: what the OpenAPI document shows.

A problem's models are ``http.problems``'s.

Does not: compute anything, or import FastAPI; the command line prints these models too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chestxray.assessment import Choice, Choices
from chestxray.inference.bundle import (
    Calibration,
    Evidence,
    Finding,
    OperatingPoint,
    Population,
    Preprocessing,
    ReferenceAnswer,
    Uncertainty,
)
from chestxray.service.http.problems import InputCheckAnswer, InputCheckProblem, Problem, Score

PngDataUrl = Annotated[str, Field(pattern="^data:image/png;base64,")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class PredictOptions(_Model):
    """The query of ``/predict`` and ``/predict_batch``."""

    model_config = ConfigDict(extra="forbid")  # a misspelt question must not pass for no question

    model: str | None = Field(None, description="which model answers; unset, the default")
    operating_point: str | None = Field(
        None, description="named threshold to decide by; unset, the model's default"
    )
    heatmap: bool = Field(
        False,
        description="add a picture of the evidence, to lay over; a warning says where it is "
        "not validated",
    )
    evidence: bool = Field(False, description="add the evidence as numbers")
    preview: bool = Field(False, description="add what the network saw, as a grey PNG")
    input_check: Choice = Field(
        "refuse", description="what to do with a picture that is not like a chest radiograph"
    )
    population: Choice = Field(
        "refuse", description="what to do with a patient of an age that the model does not know"
    )
    acquisition: Choice = Field(
        "refuse", description="what to do with a modality, body part or view that it does not know"
    )

    @property
    def choices(self) -> Choices:
        return Choices(self.operating_point, self.input_check, self.population, self.acquisition)


class MetadataOptions(_Model):
    """The query of ``/metadata``."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="which model; unset, the default")


class RadiographAnswer(_Model):
    """What is known of the file: its format by its bytes, its size in pixels when upright."""

    format: str
    width_px: int
    height_px: int


class ModelAnswer(_Model):
    """Which bundle answered: the name that asks for it, and the SHA-256 of its manifest."""

    name: str
    bundle_sha256: str


class PredictionAnswer(_Model):
    """The answer for one radiograph: ``probability`` is the calibrated one of the model's finding,
    and ``label`` the positive one of its two from ``threshold`` up. ``evidence_validated`` says
    whether evidence and heatmap have been shown to point at the finding."""

    label: str
    probability: Score
    threshold: Score
    operating_point: str
    uncertain: bool
    input_check: InputCheckAnswer
    radiograph: RadiographAnswer
    heatmap: PngDataUrl | None
    evidence: list[list[float]] | None
    evidence_validated: bool
    preview: PngDataUrl | None
    warnings: list[str]
    model: ModelAnswer


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


class ModelFacts(_Model):
    """A model that can be asked: ``name`` is what the query calls it."""

    name: str
    bundle_sha256: str
    finding: Finding
    operating_points: list[str]


class Metadata(_Model):
    """What the manifest says of the bundle that answers, and the version of this software.

    ``models`` are all that can be asked, the default first; ``model`` is the one described here.
    """

    version: str
    models: list[ModelFacts]
    model: str
    bundle_sha256: str
    format: int
    name: str
    created: str
    model_sha256: str
    precision: Literal["int8", "fp32"]
    finding: Finding
    preprocessing: Preprocessing
    evidence: Evidence
    calibration: Calibration
    operating_points: dict[str, OperatingPoint]
    default_operating_point: str
    uncertainty: Uncertainty
    population: Population
    input_check: InputCheckFacts
    reference_answers: list[ReferenceAnswer]
    training: dict[str, Any]
    metrics: list[dict[str, Any]]


class Health(_Model):
    """The state of the process in a word."""

    status: Literal["alive", "ready"]
