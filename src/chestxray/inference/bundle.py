"""A bundle: a folder with ``model.onnx`` and ``manifest.json`` that decides what a number means.

The manifest holds the SHA-256 of the model; the SHA-256 of the manifest file is the bundle's
identity and stands in every answer. ``learning``'s export and recalibration write bundles;
everything else only reads them.

Does not: run the model (``predictor``), or know how its facts were fitted (``learning``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from chestxray.errors import (
    BundleDamagedError,
    BundleMissingError,
    BundleVersionError,
    UnknownOperatingPointError,
)

FORMAT = 1
MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
BUNDLED = Path(__file__).parent.parent / "bundles" / "default"
"""The bundle that ships with the package."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Probability = Annotated[float, Field(ge=0, le=1)]


class Preprocessing(_Facts):
    """How pixels in [0, 1] become the input: stretch to ``side_px``, then (x - mean) / std."""

    side_px: int = Field(ge=32, le=1024)
    mean: float
    std: float = Field(gt=0)


class Evidence(_Facts):
    """``shape`` of the evidence in cells; evidence at ``scale`` is drawn at full colour."""

    shape: tuple[int, int]
    scale: float = Field(gt=0)


class Calibration(_Facts):
    """probability = sigmoid(logit / temperature + bias), Platt 1999.

    ``fitted_on`` says which radiographs, ``n`` how many; ``prevalence`` is the share of PNEUMONIA
    among them, and a probability is right only where the prevalence is like it.
    """

    temperature: float = Field(gt=0)
    bias: float
    fitted_on: str
    n: int
    prevalence: Probability


class OperatingPoint(_Facts):
    """A named threshold on the probability; ``rule`` says in words how it was found."""

    threshold: Probability
    rule: str


class InputCheck(_Facts):
    """Statistics of the pooled features of radiographs that the network was trained on.

    With z = (features - mean) / std, of C features, p = components · z (rows, orthonormal) and
    r = z - componentsᵀ · p, the squared distance is
    (Σ p_k² / variances_k + ‖r‖² / residual_variance) / C.
    The score is 1 / (1 + (1 / threshold - 1) · (distance / distance_at_threshold)²): 1 at distance
    0, ``threshold`` at ``distance_at_threshold``. A score below ``threshold`` means: not accepted
    as a chest radiograph. ``input_check`` computes and fits it.
    """

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    components: list[list[float]]
    variances: list[Annotated[float, Field(gt=0)]]
    residual_variance: float = Field(gt=0)
    distance_at_threshold: float = Field(gt=0)
    threshold: float = Field(gt=0, lt=1)
    rule: str

    @model_validator(mode="after")
    def _shapes_agree(self) -> InputCheck:
        n_features = len(self.mean)
        if n_features == 0 or len(self.std) != n_features:
            raise ValueError("mean and std must have one number for each feature")
        if any(len(row) != n_features for row in self.components):
            raise ValueError("every component must have one number for each feature")
        if len(self.variances) != len(self.components):
            raise ValueError("every component needs its variance")
        return self


class Polarity(_Facts):
    """``template`` is the mean training radiograph in 8 × 8 cells, mean 0, standard deviation 1. A
    picture that correlates with it below ``inverted_below`` has its grey levels inverted and is
    read the other way round. ``polarity`` computes and fits it.
    """

    template: Annotated[
        list[Annotated[list[float], Field(min_length=8, max_length=8)]],
        Field(min_length=8, max_length=8),
    ]
    inverted_below: float = Field(ge=-1, le=0)


class Population(_Facts):
    """Whom the radiographs show that the network was trained on.

    ``age_years`` are the youngest and the oldest age, in completed years, both included.
    """

    age_years: tuple[int, int]

    def knows(self, age_years: float) -> bool:
        """Whether a patient of that age is among them, in years and parts of a year."""
        youngest, oldest = self.age_years
        return youngest <= age_years < oldest + 1


class Uncertainty(_Facts):
    """``uncertain`` is an answer whose calibrated logit is within ``margin`` of the threshold's."""

    margin: float = Field(ge=0)
    rule: str


class ReferenceAnswer(_Facts):
    """The logit of one synthetic input, named by the seed that makes it."""

    seed: int
    logit: float


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _timestamp(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Timestamp = Annotated[str, AfterValidator(_timestamp)]
"""ISO 8601, as text, so that what is written is what was read."""


def _ordered(points: dict[str, OperatingPoint]) -> dict[str, OperatingPoint]:
    known = [
        points[name].threshold for name in ("screening", "balanced", "rule_in") if name in points
    ]
    if known != sorted(known):
        raise ValueError("the thresholds must rise from screening over balanced to rule_in")
    return points


class Manifest(_Facts):
    """The facts that belong to the weights."""

    format: Literal[1]
    name: str
    created: Timestamp
    model_sha256: Sha256
    precision: Literal["int8", "fp32"]
    preprocessing: Preprocessing
    evidence: Evidence
    calibration: Calibration
    operating_points: Annotated[dict[str, OperatingPoint], AfterValidator(_ordered)]
    default_operating_point: str
    uncertainty: Uncertainty
    population: Population | None = None  # not known of bundles made before it was asked
    reference_answers: list[ReferenceAnswer] = Field(min_length=1)
    training: dict[str, Any]
    metrics: list[dict[str, Any]]
    polarity: Polarity
    input_check: InputCheck  # last: it is long and for no one to read

    @model_validator(mode="after")
    def _default_exists(self) -> Manifest:
        if self.default_operating_point not in self.operating_points:
            raise ValueError("default_operating_point is not among the operating_points")
        return self

    def operating_point(self, name: str | None = None) -> tuple[str, float]:
        """The name and the threshold of an operating point, the default for ``None``.

        Raises:
            UnknownOperatingPointError: there is no point of that name.
        """
        name = self.default_operating_point if name is None else name
        if name not in self.operating_points:
            known = ", ".join(self.operating_points)
            raise UnknownOperatingPointError(
                f"the bundle has no such operating point; it has: {known}"
            )
        return name, self.operating_points[name].threshold


@dataclass(frozen=True)
class Bundle:
    """A bundle read from disk and found whole. ``sha256`` is its identity."""

    manifest: Manifest
    model: bytes
    sha256: str


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that its parts belong together.

    Raises:
        BundleMissingError: there is no bundle in ``folder``.
        BundleVersionError: it has a format that this version does not know.
        BundleDamagedError: the manifest is no manifest, or the model is not the one it names.
    """
    try:
        manifest_bytes = (folder / MANIFEST_FILE).read_bytes()
        model = (folder / MODEL_FILE).read_bytes()
    except OSError as exc:
        raise BundleMissingError(f"no bundle in {folder}: {exc.strerror}") from exc
    try:
        facts = json.loads(manifest_bytes)
        if not isinstance(facts, dict):
            raise BundleDamagedError(f"the manifest in {folder} is not a JSON object")
        if facts.get("format") != FORMAT:
            raise BundleVersionError(
                f"the bundle in {folder} has format {facts.get('format')!r}; "
                f"this version reads {FORMAT}"
            )
        manifest = Manifest.model_validate(facts)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleDamagedError(
            f"the manifest in {folder} is damaged: {where}: {first['msg']}"
        ) from exc
    except ValueError as exc:
        raise BundleDamagedError(f"the manifest in {folder} is not JSON") from exc
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise BundleDamagedError(f"the model in {folder} is not the one that its manifest names")
    return Bundle(manifest, model, hashlib.sha256(manifest_bytes).hexdigest())


def write_bundle(folder: Path, manifest: Manifest, model: bytes) -> str:
    """Write a bundle, the manifest last and whole, and return its identity (SHA-256)."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest_bytes = (manifest.model_dump_json(indent=1) + "\n").encode()
    for name, content in ((MODEL_FILE, model), (MANIFEST_FILE, manifest_bytes)):
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return hashlib.sha256(manifest_bytes).hexdigest()
