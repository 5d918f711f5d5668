"""From a file's bytes to a radiograph that a policy admits: the one place where files are decoded.

What a file says of itself is judged before a pixel of it is decoded.

Does not: predict, or load files but for who reads a data set.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from chestxray.assessment.policy import Policy
from chestxray.imaging import Limits, Opened, Radiograph, load, open_file

DEFAULT_LIMITS = Limits()


def opened(file: bytes | Opened, limits: Limits) -> Opened:
    """The file, recognised, and decoded no more than once for each size that it is asked for.

    Raises:
        As ``imaging.open_file`` does, here or when it is decoded.
    """
    source = open_file(file, limits) if isinstance(file, bytes) else file
    return Opened(source.acquisition, cache(source.decode))


def read_file(
    path: Path, policy: Policy, shrink_to_px: int, limits: Limits = DEFAULT_LIMITS
) -> Radiograph:
    """Decode a file of a data set.

    Raises:
        OSError: it cannot be opened.
        UnreadableError, LimitError, RefusedError: it cannot be read, or ``policy`` does not admit
            it.
    """
    file = opened(load(path, limits), limits)
    policy.admit(file.acquisition)
    return file.decode(shrink_to_px)
