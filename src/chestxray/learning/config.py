"""What a training run is told: one frozen TrainConfig, read from TOML and copied into the manifest.

Does not: hold paths (the command line does) or anything fitted (the manifest does).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from chestxray.errors import ConfigError
from chestxray.imaging import View
from chestxray.inference import BUNDLED, Finding, Population, read_bundle
from chestxray.inference.bundle import AgeRanges, Term, several_ranges

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(_Section):
    """Some epochs at one resolution."""

    epochs: int = Field(ge=1, description="how many")
    side_px: int = Field(ge=32, le=1024, description="size of the training images")
    frozen: tuple[str, ...] = Field(
        (),
        description="parts of the network, e.g. `layer1`, whose weights do not learn and whose "
        "BatchNorm statistics do not move",
    )


class Augmentation(_Section):
    """How far training images are moved from what they were; see ``augmentation``.

    Each ``*_p`` is the probability that the change is made to an image, the rest its extent.
    """

    flip_p: Fraction = Field(0.5, description="left and right exchanged")
    affine_p: Fraction = Field(0.9, description="rotated, scaled, sheared, shifted")
    rotate_deg: float = Field(10, ge=0, le=45, description="greatest rotation either way")
    scale: float = Field(1.25, ge=1, le=3, description="greatest factor of size, either way")
    aspect: float = Field(1.15, ge=1, le=2, description="greatest factor of the aspect ratio")
    paste_p: Fraction = Field(
        0.3,
        description="the lungs put into the frame of a radiograph without the finding, where the "
        "lungs of both are known",
    )
    paste_lungs_only_p: Fraction = Field(
        0.75, description="the same for pictures of `lungs_only` sources"
    )
    paste_levels: Fraction = Field(
        0.7, description="greatest share of the way to the frame's grey level"
    )
    veil_p: Fraction = Field(
        0.6,
        description="pictures of `lungs_only` sources cut by the mask of one of the other truth",
    )
    swap_p: Fraction = Field(
        0.1,
        description="all but the middle taken from another radiograph, where the lungs were not",
    )
    borrow_tone_p: Fraction = Field(0.4, description="the histogram of another radiograph")
    tone_p: Fraction = Field(0.7, description="brightness and contrast changed")
    brightness: Fraction = Field(0.15, description="greatest shift, of the whole range")
    contrast: float = Field(1.9, ge=1, le=4, description="greatest factor, either way")
    gamma_p: Fraction = Field(0.4, description="gamma between 0.5 and 2")
    blur_p: Fraction = Field(0.17, description="Gaussian blur")
    sharpen_p: Fraction = Field(0.17, description="edges or local contrast enhanced")
    resolution_p: Fraction = Field(0.1, description="pixels up to three times as large")
    noise_p: Fraction = Field(0.3, description="Gaussian noise")
    bars_p: Fraction = Field(0.15, description="bars at the sides")
    marker_p: Fraction = Field(0.2, description="letters burned in near an edge")
    redact_p: Fraction = Field(0.1, description="small boxes such as cover names")
    erase_p: Fraction = Field(0.3, description="one to four rectangles erased")
    jpeg_p: Fraction = Field(0.3, description="JPEG of quality 15 to 90")


class EvidenceLoss(_Section):
    """What the loss asks of the evidence beside the truth: weights, 0 leaves a part out."""

    boxes: float = Field(
        0.5, ge=0, description="of −log of the share of softmax(evidence) within boxes"
    )
    lungs: float = Field(
        0.05,
        ge=0,
        description="the same for lungs, of positives that have no boxes",
    )
    elsewhere: float = Field(
        0.01,
        ge=0,
        description="of the mean square of evidence where the finding is not: outside of boxes, or "
        "of lungs where there are none, and everywhere in negatives",
    )


def _shipped_finding() -> Finding:
    return read_bundle(BUNDLED).manifest.finding


class TrainConfig(_Section):
    """Everything that decides a training run, apart from the data and the initial weights."""

    name: str = Field(description="of the bundle")
    network: Literal["resnet18", "resnet18_os16", "resnet34", "resnet50", "vit_s16"] = Field(
        "resnet18", description="which network"
    )
    seed: int = Field(0, description="of the split, the order, the augmentation and the weights")
    heldout: float = Field(0.15, gt=0, lt=1, description="share of the subjects held out")
    heldout_of: dict[str, Fraction] = Field(
        {}, description="other shares of some sources; 1 for one that only judges"
    )
    side_px: int = Field(224, ge=32, le=1024, description="size that images are kept and served at")
    mean: float = Field(0.449, description="subtracted from pixels in [0, 1]")
    std: float = Field(0.226, gt=0, description="divides what is left")
    age_years: AgeRanges | None = Field(
        None,
        description="youngest and oldest patient in the data, in completed years; or several such "
        "ranges",
    )
    modalities: tuple[Term, ...] = Field(
        ("CR", "DX"), min_length=1, description="in the data, DICOM's terms; no other is read"
    )
    body_parts: tuple[Term, ...] = Field(
        ("CHEST",), min_length=1, description="in the data, DICOM's terms; no other is read"
    )
    views: tuple[View, ...] = Field(
        ("AP", "PA"), min_length=1, description="in the data; no other is read"
    )
    stages: tuple[Stage, ...] = Field(min_length=1, description="one after the other, see below")
    batch_size: int = Field(32, ge=2, description="images a step, of all processes together")
    learning_rate: float = Field(3e-4, gt=0, description="AdamW's, after the warm-up")
    weight_decay: float = Field(0.02, ge=0, description="AdamW's, not on biases and BatchNorm")
    warmup_epochs: float = Field(1.0, ge=0, description="linear; then a cosine to zero")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="of the mean of the weights, a step")
    label_smoothing: float = Field(0.05, ge=0, lt=1, description="taken from the target")
    sampling: Literal["plain", "strata"] = Field(
        "plain",
        description="`strata`: both truths as often; of each, sources by `shares`; of each, groups "
        "or else views as often as one another",
    )
    strata_alike: float = Field(
        0.0,
        ge=0,
        description="weight in the loss of the squared distance of a stratum's mean logit from "
        "that of its truth's strata",
    )
    shares: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="how often a source is drawn relative to others; unset, 1"
    )
    lungs_only: tuple[str, ...] = Field(
        (), description="sources whose pictures are black but for the lungs; they never judge"
    )
    teacher: tuple[str, ...] = Field(
        (), description="folders of bundles that teach, from the current directory"
    )
    teacher_weight: Fraction = Field(
        0.5, description="share of the teachers' mean probability in the target; the rest is truth"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="`auto`: bf16 where the device computes it natively"
    )
    compile: bool = Field(
        False, description="`torch.compile`: pays on GPUs, needs a C++ compiler, starts slowly"
    )
    threads: int = Field(
        2, ge=1, description="cores that compute, in each process; results depend on it"
    )
    box_findings: tuple[str, ...] = Field(
        (), description="the words of `boxes.csv` whose boxes mark the finding; unset, all"
    )
    augmentation: Augmentation = Field(Augmentation(), description="see below")
    evidence: EvidenceLoss = Field(EvidenceLoss(), description="see below")
    finding: Finding = Field(
        default_factory=_shipped_finding,
        description="what the bundle asks of a radiograph; unset, what the shipped one does",
    )

    _one_or_several = field_validator("age_years", mode="before")(several_ranges)

    @field_validator("side_px", "stages")
    @classmethod
    def _whole_patches(cls, value: Any, info: ValidationInfo) -> Any:
        sides = [value] if isinstance(value, int) else [stage.side_px for stage in value]
        if info.data.get("network") == "vit_s16" and any(side % 16 for side in sides):
            raise ValueError("vit_s16 reads patches of 16 px: side_px must be a multiple of 16")
        return value

    @model_validator(mode="after")
    def _strata_to_be_alike(self) -> TrainConfig:
        if self.strata_alike > 0 and self.sampling != "strata":
            raise ValueError('strata_alike needs sampling = "strata"')
        return self

    @property
    def population(self) -> Population:
        """Which radiographs the data hold, as the manifest has it."""
        return Population(
            age_years=self.age_years,
            modalities=self.modalities,
            body_parts=self.body_parts,
            views=self.views,
        )

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_of(self, epoch: int) -> Stage:
        """The stage that ``epoch`` (from 0) belongs to."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage
            epoch -= stage.epochs
        raise IndexError(epoch)


def read_config(file: Path) -> TrainConfig:
    """Read a TrainConfig from TOML; an unknown key is an error.

    Raises:
        ConfigError: the file cannot be read, or a key or value in it is wrong.
    """
    try:
        with file.open("rb") as stream:
            return TrainConfig.model_validate(tomllib.load(stream))
    except OSError as exc:
        raise ConfigError(f"cannot read {file}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} is not TOML: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file}: {where}: {first['msg']}") from exc
