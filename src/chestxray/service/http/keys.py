"""API keys: who may ask. The settings hold their SHA-256 only, each under a name for the log.

A key is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess from a hash,
and a slow hash would only let strangers keep a core busy.

Does not: know of headers or routes (``routes`` does), or keep a key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping


def make_key() -> str:
    """A new key: 256 random bits in URL-safe letters."""
    return secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """The SHA-256 of ``key`` in hexadecimal, as the settings hold it."""
    return hashlib.sha256(key.encode()).hexdigest()


def name_of(key: str, hashes: Mapping[str, str]) -> str | None:
    """The name whose hash is that of ``key``, if any; in a time that tells nothing of the hashes.

    ``hashes`` maps names to SHA-256 in hexadecimal.
    """
    offered = hash_of(key)
    found = None
    for name, expected in hashes.items():
        if hmac.compare_digest(offered, expected):
            found = name
    return found
