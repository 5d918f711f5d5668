"""Finds the files that a table means, by how people and programs write their names.

Does not: guess. A name that several files could have, or none, is the caller's to complain of.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable


class FileNames:
    """The files of a folder by name.

    ``paths`` are relative to the folder, with ``/``; ``folder`` is its own name.
    """

    def __init__(self, paths: Iterable[str], folder: str = "") -> None:
        self._folder = _normal(folder)
        whole = {_normal(path): [path] for path in paths}
        self._of: dict[str, list[str]] = defaultdict(list)
        for name, path in whole.items():
            for tail in _tails(name):
                self._of[tail] += path
        self._of |= whole  # a whole path means no file further down

    def find(self, written: str) -> list[str]:
        """The paths that ``written`` may mean: one if all is well.

        It may have backslashes and ``./``, lead to the folder from elsewhere, or be the end of a
        path only, as a bare file name is.
        """
        name = _normal(written)
        if name not in self._of:
            name = name.rpartition(f"/{self._folder}/")[2]
            name = name.removeprefix(f"{self._folder}/")
        return self._of.get(name, [])


def _normal(path: str) -> str:
    # macOS writes "ä" as two characters into some file systems, and as one into a table.
    return posixpath.normpath(unicodedata.normalize("NFC", path.strip().replace("\\", "/")))


def _tails(path: str) -> Iterable[str]:
    while path:
        yield path
        path = path.partition("/")[2]
