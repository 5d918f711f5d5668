"""What there is to say of many files or rows: counted, and the first few named.

Does not: decide what is an error (who collects remarks does).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from chestxray.errors import DatasetError

_N_NAMED = 3


class Remarks:
    """Remarks on a table or a folder, by what they are."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._named: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, name: str) -> None:
        """``what`` in the plural, of which ``name`` is one."""
        self._named[what].append(name)

    def raise_any(self) -> None:
        """Raises DatasetError if there is a remark."""
        if self._named:
            told = "; ".join(f"{what}: {counted(names)}" for what, names in self._named.items())
            raise DatasetError(f"{self._place}: {told}")

    def tell(self, say: Callable[[str], None]) -> None:
        """``say`` each kind of remark."""
        for what, names in self._named.items():
            say(f"{self._place}: {what}: {counted(names)}")


def counted(names: Sequence[str]) -> str:
    """Such as ``4 (a, b, c, …)``, on one line and in letters, whatever the names are made of."""
    more = ", …" if len(names) > _N_NAMED else ""
    return f"{len(names):,} ({', '.join(map(_printable, names[:_N_NAMED]))}{more})"


def _printable(name: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )
