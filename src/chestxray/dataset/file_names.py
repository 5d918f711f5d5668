"""Finds the files that a table means, by how people and programs write their names.

Does not: guess. A name that several files could have, or none, is the caller's to complain of.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

_ABSOLUTE = re.compile(r"/|[a-z]:/", re.IGNORECASE)


class FileNames:
    """The files of a folder by name.

    ``paths`` are relative to the folder, with ``/``; ``folder`` is its own name.
    """

    def __init__(self, paths: Iterable[str], folder: str = "") -> None:
        paths = list(paths)
        self._exact = _Names(paths, folder, _normal)
        self._folded = _Names(paths, folder, lambda name: _normal(name).casefold())

    def find(self, written: str) -> list[str]:
        """The paths that ``written`` may mean: one if all is well.

        It may have backslashes and ``./``, lead to the folder from elsewhere, or be the end of a
        path only, as a bare file name is. Capitals tell files apart where they do.
        """
        return self._exact.find(written) or self._folded.find(written)


class _Names:
    """Files by one way to write their names."""

    def __init__(self, paths: Iterable[str], folder: str, normal: Callable[[str], str]) -> None:
        self._normal, self._folder = normal, normal(folder)
        self._whole: dict[str, list[str]] = defaultdict(list)
        self._tails: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self._whole[normal(path)].append(path)
            for tail in _tails(normal(path)):
                self._tails[tail].append(path)

    def find(self, written: str) -> list[str]:
        name = self._normal(written)
        inside = name.rpartition(f"/{self._folder}/")[2].removeprefix(f"{self._folder}/")
        for known in (self._whole, self._tails):  # a whole path means no file further down
            for each in (name, inside):
                if each in known:
                    return known[each]
        if _ABSOLUTE.match(name):  # the folder lay elsewhere, under another name
            return next((self._whole[tail] for tail in _tails(name) if tail in self._whole), [])
        return []


def _normal(path: str) -> str:
    # macOS writes "ä" as two characters into some file systems, and as one into a table.
    path = unicodedata.normalize("NFC", path.strip().replace("\\", "/"))
    return re.sub("^/+", "/", posixpath.normpath(path))  # normpath keeps two slashes in front


def _tails(path: str) -> Iterable[str]:
    while path:
        yield path
        path = path.partition("/")[2]
