"""What the node is told: one frozen NodeConfig, read from TOML.

Does not: look at the bundles (``node`` compares the routes with them) or open a certificate
(``tls``), nor import what judges: the sender and the status read it, too.
"""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from chestxray.errors import ConfigError


def _ae_title(title: str) -> str:
    title = title.strip(" ")  # leading and trailing spaces have no meaning
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(r"an AE title has 1 to 16 ASCII characters, none of them a '\'")
    return title


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else info.context / path


AETitle = Annotated[str, AfterValidator(_ae_title)]
"""PS3.5, 6.2, VR of AE."""

LocalPath = Annotated[Path, AfterValidator(_beside_the_file)]
"""A relative path begins in the folder of the configuration."""

Name = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,64}$")]

Bundles = Annotated[
    Annotated[LocalPath, Tag("folder")]
    | Annotated[dict[Name, LocalPath], Field(min_length=1), Tag("table")],
    Discriminator(lambda given: "table" if isinstance(given, dict) else "folder"),
]

Choice = Literal["refuse", "warn"]

Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NodeTls(_Section):
    """TLS 1.2 or later for who sends to us."""

    certificate: LocalPath = Field(description="PEM file of the node's certificate and its chain")
    key: LocalPath = Field(description="PEM file of its private key, without a passphrase")
    ca: LocalPath | None = Field(
        None,
        description="PEM file of authorities; set, a peer must show a certificate signed by one",
    )


class Node(_Section):
    """Where the node listens and works."""

    ae_title: AETitle = Field(description="what peers call us, and we ourselves")
    folder: LocalPath = Field(
        description="where the queue lies, for the node's user alone (mode 0700); made when absent"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(11112, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    judges: int | None = Field(
        None, ge=1, description="processes that judge; unset, as many as there are cores"
    )
    associations: int = Field(
        16, ge=1, le=256, description="peers that may send at the same time; more are rejected"
    )
    keep_received_hours: float = Field(
        0, ge=0, description="how long a received image is kept after its answer is acknowledged"
    )
    bundle: Bundles | None = Field(
        None,
        description="folder of the bundle that judges, or a table of names and folders, the first "
        "the default; unset, the one that ships",
    )
    tls: NodeTls | None = Field(None, description="TLS for who sends to us; unset, plain TCP")

    @property
    def bundles(self) -> list[tuple[str | None, Path]]:
        """The bundles' names and folders, the default first; none stands for what ships."""
        if isinstance(self.bundle, dict):
            return list(self.bundle.items())
        return [] if self.bundle is None else [(None, self.bundle)]


class Peer(_Section):
    """Who may send to us."""

    ae_title: AETitle = Field(description="its AE title")
    hosts: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="addresses or networks it sends from; unset, any"
    )

    def fits(self, ae_title: str, address: str) -> bool:
        """Whether an association from ``address`` that calls itself ``ae_title`` is this peer's."""
        ip = ip_address(address)
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return ae_title == self.ae_title and (
            not self.hosts or any(ip in network for network in self.hosts)
        )


class DestinationTls(_Section):
    """TLS 1.2 or later towards a destination, whose certificate must name its ``host``."""

    ca: LocalPath | None = Field(
        None, description="PEM file of authorities that sign its certificate; unset, the system's"
    )
    certificate: LocalPath | None = Field(
        None, description="PEM file of the certificate that we show, if it asks for one"
    )
    key: LocalPath | None = Field(None, description="PEM file of that certificate's private key")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> DestinationTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key must be given together")
        return self


class Destination(_Section):
    """An archive that answers are sent to."""

    name: Name = Field(description="what routes, the log and the status call it")
    ae_title: AETitle = Field(description="its AE title")
    host: str = Field(description="its address or name")
    port: Port = Field(description="its port")
    tls: DestinationTls | None = Field(None, description="TLS towards it; unset, plain TCP")


class Route(_Section):
    """What becomes of an instance; the first route that fits decides."""

    destination: str = Field(description="name of the destination of its answer")
    modality: tuple[str, ...] = Field(
        (), description="Modality is one of these, '' as for the body part; unset, any"
    )
    body_part: tuple[str, ...] = Field(
        (),
        description="the body part is one of these, by DICOM's term or the instance's own word; "
        "'' if it has none, or none that is known; unset, any",
    )
    calling_ae: tuple[AETitle, ...] = Field((), description="one of these sent it; unset, any")
    bundles: tuple[str, ...] = Field(
        (), description="names of the bundles that assess it; unset, the default alone"
    )
    operating_point: str | None = Field(
        None, description="operating point that decides the label; unset, each bundle's default"
    )
    input_check: Choice = Field(
        "refuse", description="`refuse` or `warn`: what looks like no chest radiograph"
    )
    population: Choice = Field(
        "refuse", description="`refuse` or `warn`: an age that the bundle does not know"
    )
    acquisition: Choice = Field(
        "refuse",
        description="`refuse` or `warn`: a modality, body part or view that it does not know",
    )
    unvalidated_heatmaps: bool = Field(
        False,
        description="also give overlays of heatmaps that are not validated, marked as such",
    )

    @model_validator(mode="after")
    def _bundles_are_named_once(self) -> Route:
        if len(set(self.bundles)) < len(self.bundles):
            raise ValueError("a bundle is named twice")
        return self

    def fits(self, modality: str, body_part: str, calling_ae: str) -> bool:
        """Whether an instance takes this route; '' stands for what it does not say."""
        return (
            _allows(self.modality, modality)
            and _allows(self.body_part, body_part)
            and (not self.calling_ae or calling_ae in self.calling_ae)
        )


def _allows(allowed: tuple[str, ...], value: str) -> bool:
    # Code strings are in capitals (PS3.5, 6.2), but not everyone who writes them knows.
    return not allowed or value.strip().upper() in (word.strip().upper() for word in allowed)


class NodeConfig(_Section):
    """Everything that the node is told."""

    node: Node = Field(description="where the node listens and works")
    peer: tuple[Peer, ...] = Field((), description="who may send; nobody else may")
    destination: tuple[Destination, ...] = Field(min_length=1, description="where answers go")
    route: tuple[Route, ...] = Field(min_length=1, description="which instance goes where")

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> NodeConfig:
        names = [destination.name for destination in self.destination]
        if len(set(names)) < len(names):
            raise ValueError("two destinations have one name")
        for number, route in enumerate(self.route):
            if route.destination not in names:
                raise ValueError(f"route.{number}.destination: there is no such destination")
        return self


def read_config(file: Path) -> NodeConfig:
    """Read a NodeConfig from TOML; an unknown key is an error.

    Raises:
        ConfigError: the file cannot be read, or a key or value in it is wrong.
    """
    try:
        with file.open("rb") as stream:
            return NodeConfig.model_validate(tomllib.load(stream), context=file.absolute().parent)
    except OSError as exc:
        raise ConfigError(f"cannot read {file}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} is not TOML: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file}: {where or 'the whole'}: {first['msg']}") from exc
