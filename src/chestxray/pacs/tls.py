"""TLS for both directions, from the files that the configuration names.

Does not: speak any TLS before 1.2, or accept a certificate that it cannot verify.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from chestxray.errors import ConfigError
from chestxray.pacs.config import DestinationTls, NodeTls


def server_context(tls: NodeTls) -> ssl.SSLContext:
    """For the associations that peers ask for; with a ``ca`` they must show a certificate.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls.certificate, tls.key, tls.ca)
    if tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: DestinationTls) -> ssl.SSLContext:
    """For the associations that we ask for; the destination's certificate must name its host.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls.certificate, tls.key, tls.ca)
    if tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def _load(
    context: ssl.SSLContext, certificate: Path | None, key: Path | None, ca: Path | None
) -> None:
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key, password="")
        if ca is not None:
            context.load_verify_locations(ca)
    except OSError as exc:  # ssl.SSLError is one, too
        files = ", ".join(str(path) for path in (certificate, key, ca) if path is not None)
        raise ConfigError(f"TLS: cannot use {files}: {exc.strerror or exc}") from exc
