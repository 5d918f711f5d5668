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

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from chestxray.dataset import Labels
from chestxray.errors import (
    BundleDamagedError,
    BundleMissingError,
    BundleVersionError,
    UnknownOperatingPointError,
)
from chestxray.imaging import View

FORMAT = 2
"""What is written; format 1 is read, too."""
MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"
BUNDLED = Path(__file__).parent.parent / "bundles" / "default"
"""The bundle that ships with the package."""
FORMAT_1 = Path(__file__).parent.parent / "bundles" / "format-1.json"
"""What every bundle of format 1 left unsaid, as the facts of format 2."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Probability = Annotated[float, Field(ge=0, le=1)]


Label = Annotated[str, Field(pattern="^[A-Za-z0-9][-_A-Za-z0-9]{0,63}$")]
"""What an answer says; also the name of a folder in a data set."""

Term = Annotated[str, Field(min_length=1, max_length=64, pattern="^[^a-z]+$")]
"""A term as ``imaging.Acquisition`` has it, in capitals."""


def _one_value(text: str) -> str:
    if not text.strip() or "\\" in text or not text.isprintable():
        raise ValueError("must be printable characters, none of them a backslash")
    return text


_OneValue = Annotated[str, AfterValidator(_one_value)]
"""In DICOM a backslash begins another value (PS3.5, 6.2)."""


class CodedConcept(_Facts):
    """A code of DICOM (PS3.3, 8): ``scheme`` is the designator of its coding scheme."""

    value: _OneValue = Field(max_length=16)
    scheme: _OneValue = Field(max_length=16)
    meaning: _OneValue = Field(max_length=64)


class Finding(_Facts):
    """What a bundle asks of a radiograph: the label without the finding, that with it, its code.

    ``site`` is where in the body it is found, for reports; None where nobody said.
    """

    negative: Label
    positive: Label
    code: CodedConcept
    site: CodedConcept | None = None

    @model_validator(mode="after")
    def _labels_differ(self) -> Finding:
        if self.negative.casefold() == self.positive.casefold():
            raise ValueError("the two labels must differ")
        if "refused" in (self.negative.casefold(), self.positive.casefold()):
            raise ValueError("refused is no label")
        return self

    @property
    def labels(self) -> Labels:
        return Labels(self.negative, self.positive)

    def is_that_of(self, other: Finding) -> bool:
        """Whether two bundles ask the same, in the same words."""
        return (self.labels, self.code) == (other.labels, other.code)


class Preprocessing(_Facts):
    """How a picture becomes the input: pixels in [0, 1], stretched to ``side_px``, then
    (x - mean) / std. Decoding a large picture may shrink it as long as both sides keep
    ``shrink_to_px``.
    """

    side_px: int = Field(ge=32, le=1024)
    shrink_to_px: int = Field(le=2048)
    mean: float
    std: float = Field(gt=0)

    @model_validator(mode="after")
    def _real_pixels(self) -> Preprocessing:
        if self.shrink_to_px < self.side_px:
            raise ValueError("shrink_to_px must not be less than side_px")
        return self

    @staticmethod
    def enough_px(side_px: int) -> int:
        """A ``shrink_to_px`` for inputs of ``side_px``: twice that, and at least 448.

        On the 80 full-size originals an input of 224 px then differs from the full decode's by 0.18
        levels of grey on average; shrinking to 224 px would make it 0.70, and for an input of
        160 px shrinking to 320 px 0.35.
        """
        return max(448, 2 * side_px)


class EvidenceValidation(_Facts):
    """How the evidence compares with boxes that readers drew around the finding.

    ``n`` radiographs of ``dataset`` have boxes. ``pointing`` is the share of them whose peak of
    evidence lies in a box; one point, the same for all, chosen to hit the most, would reach
    ``best_fixed_point``. ``auprc`` is the area under the precision-recall curve over the pixels of
    a radiograph, on average, and ``chance`` the share of pixels within boxes, which is what
    evidence at random would reach.
    """

    dataset: str = Field(min_length=1)
    n: int = Field(ge=1)
    pointing: Probability
    best_fixed_point: Probability
    auprc: Probability
    chance: Probability


class Evidence(_Facts):
    """``shape`` of the evidence in cells; evidence at ``scale`` is drawn at full colour.

    Only where it is ``validated`` has a heatmap been shown to point at the finding: to beat, in
    ``validation``, the best fixed point. A manifest that does not say so is of one that has not.
    """

    shape: tuple[int, int]
    scale: float = Field(gt=0)
    validated: bool = False
    validation: EvidenceValidation | None = None

    @model_validator(mode="after")
    def _validated_by_figures(self) -> Evidence:
        if not self.validated:
            return self
        if self.validation is None:
            raise ValueError("validated evidence needs the figures of its validation")
        if self.validation.pointing <= self.validation.best_fixed_point:
            raise ValueError("validated evidence must point better than the best fixed point")
        return self


class Calibration(_Facts):
    """probability = sigmoid(logit / temperature + bias), Platt 1999.

    ``fitted_on`` says which radiographs, ``n`` how many; ``prevalence`` is the share of them that
    have the finding, and a probability is right only where the prevalence is like it.
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


class Layout(_Facts):
    """Whether features are of a whole, upright, frontal chest: of a linear classifier.

    The score is the sigmoid of ``weights`` · features + ``bias`` + the logit of the check's
    threshold, so at 0 = ``weights`` · features + ``bias`` it is the threshold.
    """

    weights: list[float] = Field(min_length=1)
    bias: float


class InputCheck(_Facts):
    """Statistics of the features of radiographs that the network was trained on.

    Features are C channels, or C channels of several cells each, one channel after the other.
    With z = (features - mean) / std, of the channels' means, p = components · z (rows, orthonormal)
    and r = z - componentsᵀ · p, the squared distance is
    (Σ p_k² / variances_k + ‖r‖² / residual_variance) / C.
    The score is 1 / (1 + (1 / threshold - 1) · (distance / distance_at_threshold)²): 1 at distance
    0, ``threshold`` at ``distance_at_threshold``; and no more than that of ``layout``, where there
    is one. A score below ``threshold`` means: not accepted as a chest radiograph. ``input_check``
    computes it.
    """

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    components: list[list[float]]
    variances: list[Annotated[float, Field(gt=0)]]
    residual_variance: float = Field(gt=0)
    distance_at_threshold: float = Field(gt=0)
    threshold: float = Field(gt=0, lt=1)
    rule: str
    layout: Layout | None = None

    @property
    def n_features(self) -> int:
        return len(self.mean if self.layout is None else self.layout.weights)

    @model_validator(mode="after")
    def _shapes_agree(self) -> InputCheck:
        n_features = len(self.mean)
        if n_features == 0 or len(self.std) != n_features:
            raise ValueError("mean and std must have one number for each feature")
        if self.n_features % n_features:
            raise ValueError("the layout must have as many weights for each feature")
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


AgeRanges = tuple[tuple[int, int], ...]


def several_ranges(ages: Any) -> Any:
    """Ranges of ages where there may be but one, as bundles with one had it."""
    if isinstance(ages, list | tuple) and all(isinstance(age, int) for age in ages):
        return [ages]
    return ages


class Population(_Facts):
    """Which radiographs the bundle knows: those that the network was trained on.

    ``age_years`` are ranges of patients' ages in completed years, from the youngest to the oldest,
    both included; what lies between two ranges is not known. None where nobody said. The others are
    terms of ``imaging.Acquisition``.
    """

    age_years: AgeRanges | None
    modalities: tuple[Term, ...] = Field(min_length=1)
    body_parts: tuple[Term, ...] = Field(min_length=1)
    views: tuple[View, ...] = Field(min_length=1)

    _one_or_several = field_validator("age_years", mode="before")(several_ranges)

    @model_validator(mode="after")
    def _youngest_first(self) -> Population:
        if self.age_years is None:
            return self
        below = -1
        for youngest, oldest in self.age_years:
            if not below < youngest <= oldest:
                raise ValueError("age_years must be the youngest and the oldest, ranges rising")
            below = oldest
        if not self.age_years:
            raise ValueError("age_years must have a range, or be null")
        return self

    def knows_age(self, age_years: float) -> bool:
        """Whether a patient of that age is among them, in years and parts of a year."""
        if self.age_years is None:
            return True
        return any(youngest <= age_years < oldest + 1 for youngest, oldest in self.age_years)

    @property
    def ages(self) -> str | None:
        """The known ages in words, such as "1 to 5 or 18 to 90 years"."""
        if self.age_years is None:
            return None
        return " or ".join(f"{young} to {old}" for young, old in self.age_years) + " years"


class Uncertainty(_Facts):
    """``uncertain`` is an answer whose calibrated logit is within ``margin`` of the threshold's."""

    margin: float = Field(ge=0)
    rule: str


class ReferenceAnswer(_Facts):
    """The logit of one synthetic input, named by the seed that makes it."""

    seed: int = Field(ge=0)
    logit: float


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _timestamp(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Timestamp = Annotated[str, AfterValidator(_timestamp)]
"""ISO 8601, as text, so that what is written is what was read."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must consist of printable characters")
    return text


def _ordered(points: dict[str, OperatingPoint]) -> dict[str, OperatingPoint]:
    known = [
        points[name].threshold for name in ("screening", "balanced", "rule_in") if name in points
    ]
    if known != sorted(known):
        raise ValueError("the thresholds must rise from screening over balanced to rule_in")
    return points


class Manifest(_Facts):
    """The facts that belong to the weights."""

    format: Literal[1, 2]
    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
    created: Timestamp
    model_sha256: Sha256
    precision: Literal["int8", "fp32"]
    finding: Finding
    preprocessing: Preprocessing
    evidence: Evidence
    calibration: Calibration
    operating_points: Annotated[dict[Label, OperatingPoint], AfterValidator(_ordered)]
    default_operating_point: str
    uncertainty: Uncertainty
    population: Population
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
        json.dumps(facts, ensure_ascii=False).encode()  # half a character would fail later
        if not isinstance(facts, dict):
            raise BundleDamagedError(f"the manifest in {folder} is not a JSON object")
        version = facts.get("format")
        if type(version) is not int or version not in (1, FORMAT):
            raise BundleVersionError(
                f"the bundle in {folder} has format {facts.get('format')!r}; "
                f"this version reads 1 and {FORMAT}"
            )
        if version == 1:
            facts = _said_in_full(facts)
        manifest = Manifest.model_validate(facts)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = " ".join(".".join(str(part) for part in first["loc"]).split())
        raise BundleDamagedError(
            f"the manifest in {folder} is damaged: {where}: {first['msg']}"
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise BundleDamagedError(f"the manifest in {folder} is no manifest") from exc
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise BundleDamagedError(f"the model in {folder} is not the one that its manifest names")
    return Bundle(manifest, model, hashlib.sha256(manifest_bytes).hexdigest())


def _said_in_full(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a manifest of format 1 as format 2 has them."""
    unsaid = json.loads(FORMAT_1.read_text(encoding="utf-8"))
    preprocessing, population = facts.get("preprocessing"), facts.get("population")
    population = {} if population is None else population
    if not isinstance(preprocessing, dict) or not isinstance(population, dict):
        return facts  # damaged, and found to be so by who validates it
    if "finding" in facts or "shrink_to_px" in preprocessing or set(population) - {"age_years"}:
        raise ValueError("a manifest of format 1 with facts of format 2")
    side_px = preprocessing.get("side_px")
    # All were shrunk to 448 px, whatever their side: too far for the larger ones.
    enough_px = Preprocessing.enough_px(int(side_px)) if isinstance(side_px, int | float) else 0
    return facts | {
        "finding": unsaid["finding"],
        "preprocessing": preprocessing | {"shrink_to_px": enough_px},
        "population": unsaid["population"] | population,
    }


def write_bundle(folder: Path, manifest: Manifest, model: bytes) -> str:
    """Write a bundle, the manifest last and whole, and return its identity (SHA-256).

    It has the newest format, whichever ``manifest`` was read from.
    """
    manifest = manifest.model_copy(update={"format": FORMAT})
    folder.mkdir(parents=True, exist_ok=True)
    manifest_bytes = (manifest.model_dump_json(indent=1) + "\n").encode()
    for name, content in ((MODEL_FILE, model), (MANIFEST_FILE, manifest_bytes)):
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return hashlib.sha256(manifest_bytes).hexdigest()
