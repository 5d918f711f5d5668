"""What it takes to read a file and make the network's input of it, on one core.

    .venv/bin/python benchmarks/decoding.py

JPEGs as published; the PNGs hold the same full-size pixels, those of 16 bits with noise in the bits
that 8 do not have.

Does not: judge (``inference``), or compare what it could be otherwise (``options``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import cycle

import numpy as np
from measurement import Row, in_turns
from PIL import Image
from radiographs import Radiographs
from table import run

from chestxray import imaging
from chestxray.inference.bundle import Preprocessing

SHRINK_TO_PX = Preprocessing.enough_px(224)

SECONDS = 1.0
"""For each case in a round."""

N_PNGS = 8
"""Of each depth: as many as are worth the time that it takes to write them."""


def measure(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for each kind of file: read, stretched to 224 px and normalised."""
    originals = files[0].contents()
    pixels = [imaging.read(data).pixels for data in originals[:N_PNGS]]
    random = np.random.default_rng(0)
    cases: dict[str, Callable[[], object]] = {
        **{f"JPEG, {of.kind}": _reading(of.contents()) for of in files},
        "JPEG, originals, not shrunk": _decoding_in_full(originals),
        "PNG of 8 bits, originals": _reading([_png(_levels(p)) for p in pixels]),
        "PNG of 16 bits, originals": _reading([_png(_fine_levels(p, random)) for p in pixels]),
    }
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    return [laps[case].row("decoding", "read, make input", case) for case in cases]


def _reading(contents: Sequence[bytes]) -> Callable[[], object]:
    files = cycle(contents)
    return lambda: _input(imaging.read(next(files), shrink_to_px=SHRINK_TO_PX))


def _decoding_in_full(contents: Sequence[bytes]) -> Callable[[], object]:
    files = cycle(contents)
    return lambda: _input(imaging.read(next(files)))


def _input(radiograph: imaging.Radiograph) -> object:
    return imaging.to_input(radiograph.pixels, side_px=224, mean=0.449, std=0.226)


def _levels(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).astype(np.uint8)


def _fine_levels(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    noisy = pixels * 65535 + random.uniform(-128, 128, pixels.shape)
    return np.clip(noisy, 0, 65535).astype(np.uint16)


def _png(levels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    run(measure, __doc__, seconds=SECONDS)
