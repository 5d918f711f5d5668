"""From a file's bytes to a radiograph that a policy admits: the one place where files are decoded.

What a file says of itself is judged before a pixel of it is decoded.

Does not: predict, or load files but for who reads a data set.
"""

from __future__ import annotations

from pathlib import Path

from chestxray.assessment.policy import Policy
from chestxray.errors import ChestXrayError
from chestxray.imaging import Limits, Opened, Radiograph, load, open_file

DEFAULT_LIMITS = Limits()


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
