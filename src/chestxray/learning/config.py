"""What a training run is told: one frozen TrainConfig, read from TOML and copied into the manifest.

Does not: hold paths (the command line does) or anything fitted (the manifest does).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chestxray.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stage(_Section):
    """Some epochs at one resolution. ``frozen`` names children of the network, e.g. ``layer1``:
    their weights do not learn and their BatchNorm statistics do not move."""

    epochs: int = Field(ge=1)
    side_px: int = Field(ge=32, le=1024)
    frozen: tuple[str, ...] = ()


class Augmentation(_Section):
    """How far training images are moved from what they were; see ``augmentation``.

    Each ``*_p`` is the probability that the change is made to an image, the rest its extent.
    """

    flip_p: Fraction = 0.5
    rotate_deg: float = Field(10, ge=0, le=45)
    affine_p: Fraction = 0.9
    crop_p: Fraction = 0.7
    crop_scale_min: float = Field(0.6, gt=0, le=1)
    tone_p: Fraction = 0.9
    brightness: Fraction = 0.25
    contrast: Fraction = 0.5
    gamma_p: Fraction = 0.4
    sharpness_p: Fraction = 0.5
    noise_p: Fraction = 0.4
    jpeg_p: Fraction = 0.4
    erase_p: Fraction = 0.4


class TrainConfig(_Section):
    """Everything that decides a training run, apart from the data and the initial weights."""

    name: str
    network: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    seed: int = 0
    heldout: float = Field(0.15, gt=0, lt=1)
    side_px: int = Field(224, ge=32, le=1024)
    mean: float = 0.449
    std: float = Field(0.226, gt=0)
    stages: tuple[Stage, ...] = Field(min_length=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    mixup_alpha: float = Field(0.0, ge=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int = Field(2, ge=1)
    workers: int = Field(1, ge=0)
    augmentation: Augmentation = Augmentation()

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
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file} is not TOML: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file}: {where}: {first['msg']}") from exc
