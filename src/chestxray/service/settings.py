"""What an operator may set, by ``CHESTXRAY_*`` environment variables or on the command line.

Does not: hold facts that belong to the weights (the manifest does), or read anything at import.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from chestxray.assessment.decoding import THREADS_MEMORY_BYTES
from chestxray.assessment.registry import Named, named
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
    bundle: Annotated[tuple[Named, ...], NoDecode] = Field(
        default_factory=tuple,
        description="`DIR`, or `NAME=DIR,…`: folders of the bundles to serve, the default first; "
        "unset, the one that ships",
    )
    shadow: Annotated[tuple[Named, ...], NoDecode] = Field(
        default_factory=tuple,
        description="`NAME=DIR,…`: bundles that assess what the default answers, and are not shown",
    )
    shadow_share: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the requests that shadows assess",
    )
    workers: int = Field(1, ge=1, description="processes that serve")
    threads: int | None = Field(
        None,
        ge=1,
        description="radiographs judged at the same time in a process; unset, as many as the "
        "processes have cores each",
    )
    api_keys: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="`NAME:SHA256,…`, as `chestxray key NAME` prints it: who may ask",
    )
    require_api_key: bool | None = Field(
        None,
        description="whether a key is demanded; unset, if there are keys or the address is not "
        "loopback",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list, description="`ORIGIN,…`: pages of other sites that may ask"
    )
    max_body_bytes: int = Field(128 * 1024 * 1024, ge=1, description="largest request body")
    max_buffered_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1,
        validate_default=True,
        description="all bodies and long answers in memory together; more get 429",
    )
    max_file_bytes: int = Field(Limits().max_bytes, ge=1, description="largest file in a body")
    max_pixels: int = Field(Limits().max_pixels, ge=1, description="most pixels of a radiograph")
    decode_memory_bytes: int | None = Field(
        None,
        ge=1,
        description="memory of the radiographs that are decoded at the same time in a process; one "
        f"more waits for its share; unset, {THREADS_MEMORY_BYTES >> 20} MiB for each thread",
    )
    max_files: int = Field(64, ge=1, description="most files in a batch")
    queue_size: int = Field(
        64, ge=0, description="requests that may wait while all threads work; more get 429"
    )
    queue_timeout_s: float = Field(
        10.0, gt=0, description="longest wait for a thread; after it a request gets 429"
    )
    body_timeout_s: float = Field(
        20.0,
        gt=0,
        description="longest wait for a body, and a second more for each 16 KiB of it; after it "
        "a request gets 408",
    )
    answer_timeout_s: float = Field(
        20.0,
        gt=0,
        description="longest wait for a client to take 64 KiB of an answer, or its rest; after it "
        "the connection ends",
    )
    max_connections: int = Field(
        4096,
        ge=1,
        description="open connections of a process, and at most half the files that it may open; "
        "those whose clients are waited for longest make room for more",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged"
    )

    @field_validator("bundle", "shadow", mode="before")
    @classmethod
    def _named_folders(cls, given: object) -> object:
        """A variable's ``NAME=DIR,…``, or the command line's options of ``NAME=DIR``."""
        if isinstance(given, Path):
            return ((None, given),)
        options = given.split(",") if isinstance(given, str) else given
        if not isinstance(options, list):
            return options
        try:
            return tuple(map(named, options))
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc

    @field_validator("api_keys", mode="before")
    @classmethod
    def _named_hashes(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        keys = dict(_named_hash(entry) for entry in given.split(","))
        if len(keys) < len(given.split(",")):
            raise ValueError("two keys have one name")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, given: object) -> object:
        return [origin.strip() for origin in given.split(",")] if isinstance(given, str) else given

    @field_validator("max_buffered_bytes")
    @classmethod
    def _one_body_fits(cls, n_bytes: int, others: ValidationInfo) -> int:
        if n_bytes < others.data.get("max_body_bytes", 0):
            raise ValueError("must be at least MAX_BODY_BYTES, or such a body could never come in")
        return n_bytes

    @property
    def demands_key(self) -> bool:
        """Whether who asks must have a key."""
        if self.require_api_key is not None:
            return self.require_api_key
        return bool(self.api_keys) or not self.on_loopback

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def threads_per_worker(self) -> int:
        return self.threads or max(1, usable_cores() // self.workers)

    @property
    def decode_budget_bytes(self) -> int:
        return self.decode_memory_bytes or THREADS_MEMORY_BYTES * self.threads_per_worker


def _named_hash(entry: str) -> tuple[str, str]:
    name, _, sha256 = entry.strip().partition(":")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError("must be NAME:SHA256,…, as `chestxray key NAME` prints it")
    return name, sha256


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment; ``overrides`` that are not ``None`` take precedence.

    Raises:
        ConfigError: a value is not what its setting takes, or a ``CHESTXRAY_`` variable belongs to
            no setting: a limit with a typing error in its name must not silently be no limit. Or
            keys are demanded and there are none.
    """
    variables = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in variables:
            raise ConfigError(f"{name}: no such setting")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        setting = str(first["loc"][0])
        name = setting if setting in given else PREFIX + setting.upper()
        raise ConfigError(f"{name}: {first['msg']}") from exc
    if settings.demands_key and not settings.api_keys:
        raise ConfigError(
            f"{settings.host} can be reached from elsewhere: set {PREFIX}API_KEYS (`chestxray key "
            f"NAME` makes one), or {PREFIX}REQUIRE_API_KEY=false to answer anyone"
            if settings.require_api_key is None
            else f"{PREFIX}REQUIRE_API_KEY: there are no {PREFIX}API_KEYS to demand"
        )
    # Who sets keys believes that they are demanded, and the image has this set to false.
    if settings.api_keys and not settings.demands_key and not settings.on_loopback:
        raise ConfigError(
            f"{PREFIX}REQUIRE_API_KEY=false demands none of the {PREFIX}API_KEYS: set it to true"
        )
    return settings
