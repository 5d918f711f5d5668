"""From a file's bytes to a radiograph that a policy admits: the one place where files are decoded.

What a file says of itself is judged before a pixel of it is decoded, and what decoding it takes in
memory is waited for.

Does not: predict, or load files but for who reads a data set.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chestxray.assessment.policy import Policy
from chestxray.errors import ChestXrayError
from chestxray.imaging import Limits, Opened, Radiograph, load, open_file

DEFAULT_LIMITS = Limits()

THREADS_MEMORY_BYTES = 256 * 1024 * 1024
"""A thread's share of a budget. All but a few files of those that are accepted need less."""

GIVEN_BACK_BYTES = 128 * 1024 * 1024
"""More than a radiograph of ordinary size takes, which is decoded faster in what is there."""


class MemoryBudget:
    """Memory that the files which are decoded at the same time have together.

    Each waits for its own before it begins, in the order in which they come. A file that needs more
    than all is alone.
    """

    def __init__(self, n_bytes: int) -> None:
        self._all = self._free = n_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def share(self, n_bytes: int) -> Iterator[None]:
        """Have ``n_bytes``, once they are there."""
        n_bytes, ticket = min(n_bytes, self._all), object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= n_bytes)
                self._free -= n_bytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        is_large = n_bytes >= GIVEN_BACK_BYTES
        try:
            if is_large:
                _give_memory_back()
            yield
        finally:
            if is_large:
                _give_memory_back()
            with self._changed:
                self._free += n_bytes
                self._changed.notify_all()


def _give_memory_back() -> None:
    """What is free goes to the system. glibc would keep it, for each thread hundreds of megabytes.

    Source: malloc_trim(3).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def opened(file: bytes | Opened, limits: Limits) -> Opened:
    """The file, recognised; see ``imaging.open_file``, also for what it raises."""
    return open_file(file, limits) if isinstance(file, bytes) else file


class Decoded:
    """The pictures of one file, each size decoded once, as long as this is held.

    A file that cannot be decoded is not tried again, since that may have cost the most.
    """

    def __init__(self, file: Opened) -> None:
        self._file = file
        self._found: dict[int, Radiograph | ChestXrayError] = {}

    def at(self, shrink_to_px: int) -> Radiograph:
        """The radiograph; see ``imaging.open_file`` for what it raises."""
        if shrink_to_px not in self._found:
            try:
                self._found[shrink_to_px] = self._file.decode(shrink_to_px)
            except ChestXrayError as exc:
                self._found[shrink_to_px] = exc
        found = self._found[shrink_to_px]
        if isinstance(found, ChestXrayError):
            raise found
        return found


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
