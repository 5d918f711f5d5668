"""The files that are read and sent: full-size originals and small files of 224 px.

They are published radiographs where there are any (``../shared/data``), synthetic ones elsewhere;
every report says which.

Does not: put a file into the repository.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.imaging.synthetic import synthetic_radiograph

SHARED = Path(__file__).parents[2] / "shared" / "data"
N_FILES = 80
N_SYNTHETIC = 16


@dataclass(frozen=True, slots=True)
class Radiographs:
    """Files of one kind: ``originals`` or ``small``."""

    kind: str
    source: str
    paths: tuple[Path, ...]

    def contents(self) -> list[bytes]:
        return [path.read_bytes() for path in self.paths]

    def facts(self) -> dict[str, str | int | float]:
        sizes = [path.stat().st_size for path in self.paths]
        return {"n": len(sizes), "source": self.source, "mean_bytes": sum(sizes) / len(sizes)}


@contextmanager
def radiographs(data: Path | None) -> Iterator[list[Radiographs]]:
    """Both kinds, from ``data`` (holds ``originals`` and ``chest_xray/train``) or drawn."""
    if data is not None:
        train = sorted((data / "chest_xray" / "train").glob("*/*.jpeg"))
        originals = sorted((data / "originals").glob("*/*.jpeg"))[:N_FILES]
        small = train[:: max(len(train) // N_FILES, 1)][:N_FILES]
        yield [
            Radiographs("originals", "full-size published JPEGs", tuple(originals)),
            Radiographs("small", "published JPEGs of 224 px", tuple(small)),
        ]
        return
    with tempfile.TemporaryDirectory() as folder:
        yield [
            _drawn("originals", 1000, 1300, Path(folder)),
            _drawn("small", 224, 224, Path(folder)),
        ]


def _drawn(kind: str, height_px: int, width_px: int, folder: Path) -> Radiographs:
    paths = []
    for seed in range(N_SYNTHETIC):
        square = synthetic_radiograph(seed, max(height_px, width_px))
        top = (len(square) - height_px) // 2
        levels = np.rint(square[top : top + height_px] * 255).astype(np.uint8)
        paths.append(folder / f"{kind}-{seed}.jpeg")
        Image.fromarray(levels).save(paths[-1], quality=90)
    return Radiographs(kind, f"synthetic JPEGs of {width_px} × {height_px} px", tuple(paths))
