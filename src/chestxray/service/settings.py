"""What an operator may set, by ``CHESTXRAY_*`` environment variables or on the command line.

Does not: hold facts that belong to the weights (the manifest does), or read anything at import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from chestxray.errors import ConfigError
from chestxray.imaging import Limits

PREFIX = "CHESTXRAY_"


def usable_cores() -> int:
    """The cores that this process may run on; fewer than the machine's under taskset or cpusets."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """The settings of the service. Build it with :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    bundle: Path | None = Field(
        None, description="folder of the bundle to serve; unset, the one that ships"
    )
    workers: int = Field(1, ge=1, description="processes that serve")
    threads: int = Field(
        default_factory=usable_cores,
        ge=1,
        description="radiographs judged at the same time in a process; unset, the usable cores",
    )
    max_body_bytes: int = Field(128 * 1024 * 1024, ge=1, description="largest request body")
    max_file_bytes: int = Field(Limits().max_bytes, ge=1, description="largest file in a body")
    max_pixels: int = Field(Limits().max_pixels, ge=1, description="most pixels of a radiograph")
    max_files: int = Field(64, ge=1, description="most files in a batch")
    queue_size: int = Field(
        64, ge=0, description="requests that may wait while all threads work; more get 429"
    )
    queue_timeout_s: float = Field(
        10.0, gt=0, description="longest wait for a thread; after it a request gets 429"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged"
    )


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment; ``overrides`` that are not ``None`` take precedence.

    Raises:
        ConfigError: a value is not what its setting takes, or a ``CHESTXRAY_`` variable belongs to
            no setting: a limit with a typing error in its name must not silently be no limit.
    """
    variables = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in variables:
            raise ConfigError(f"{name}: no such setting")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        setting = str(first["loc"][0])
        name = setting if setting in given else PREFIX + setting.upper()
        raise ConfigError(f"{name}: {first['msg']}") from exc
