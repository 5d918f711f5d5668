"""What decoding a picture of the most pixels that are accepted takes in memory, format by format.

    .venv/bin/python benchmarks/decoding_memory.py

Each in a process of its own, in full size; how much more it has resident at the most than before.
Some are as few bytes as their format allows, others noise of as many as are accepted: the file's
own bytes are part of the figure only where they are copied.

Does not: make the network's input (``decoding``), or run a server (``limit``, ``overload``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from machine import REPOSITORY, commit, machine
from pydicom import uid

sys.path.append(str(REPOSITORY / "tests"))

from factories import dicom_files, images
from factories.hostile import SIDE_PX, progressive
from factories.images import chunk
from factories.reading_apart import read_apart

KEY = b"\0\1"


def png(colour: int, samples: int, bits: int = 8, before_data: bytes = b"", lap: int = 0) -> bytes:
    """Rows of the costliest filter (Paeth); ``lap`` is 1 where they are interlaced."""
    sides = images.header(SIDE_PX, SIDE_PX, colour, bits, bool(lap))
    rows = [b"\4" + b"\1" * (SIDE_PX * samples * bits // 8)] * SIDE_PX
    if lap:
        grid = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2)]
        rows = [
            b"\4" + b"\1" * (len(range(x, SIDE_PX, right)) * samples * bits // 8)
            for x, right, y, down in [*grid, (0, 1, 1, 2)]
            for _ in range(y, SIDE_PX, down)
        ]
    return images.png_of(sides, rows, before_data)


def stored(bits: int) -> np.ndarray:
    """Stripes with some noise: enough for a codec to work, few enough for 64 MiB."""
    values = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
    values[::7] = 2**bits - 1
    values[:, ::3] = np.random.default_rng(0).integers(2**bits, size=values[:, ::3].shape)
    return values if bits > 8 else values.astype(np.uint8)


def encoded(transfer_syntax: str, bits: int) -> bytes:
    return dicom_files.compressed(stored(bits), transfer_syntax, bits=bits)


def native(**said: object) -> bytes:
    return dicom_files.dicom(stored(8), bits=8, **said)


def jpeg(mode: str, components: int, **options: object) -> bytes:
    grey = stored(8)
    samples = grey if components == 1 else np.stack([grey] * components, axis=-1)
    return images.jpeg(samples, mode, quality=30, **options)


CASES: dict[str, Callable[[], bytes]] = {
    "PNG, grey of 8 bits": lambda: png(images.GREY, 1),
    "PNG, grey of 16 bits": lambda: png(images.GREY, 1, 16),
    "PNG, grey of 16 bits with tRNS": lambda: png(images.GREY, 1, 16, chunk(b"tRNS", KEY)),
    "PNG, grey of 8 bits with tRNS": lambda: png(images.GREY, 1, 8, chunk(b"tRNS", KEY)),
    "PNG, grey and alpha of 16 bits": lambda: png(images.GREY_ALPHA, 2, 16),
    "PNG, palette with tRNS": lambda: png(
        images.PALETTE, 1, 8, chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", KEY)
    ),
    "PNG, RGB": lambda: png(images.RGB, 3),
    "PNG, RGB with tRNS": lambda: png(images.RGB, 3, 8, chunk(b"tRNS", KEY * 3)),
    "PNG, RGBA": lambda: png(images.RGBA, 4),
    "PNG, RGBA of 16 bits": lambda: png(images.RGBA, 4, 16),
    "PNG, RGBA of 16 bits, interlaced": lambda: png(images.RGBA, 4, 16, lap=1),
    "JPEG, grey": lambda: jpeg("L", 1),
    "JPEG, colour": lambda: jpeg("RGB", 3),
    "JPEG, colour, progressive": lambda: jpeg("RGB", 3, progressive=True),
    "JPEG, CMYK": lambda: jpeg("CMYK", 4),
    "JPEG, CMYK, progressive, 24 scans": lambda: progressive(SIDE_PX, 4, 20, whole=True),
    "DICOM, native, 8 bits, padded": lambda: native(PixelPaddingValue=0),
    "DICOM, native, 8 bits, turned": lambda: native(PatientOrientation=["F", "L"]),
    "DICOM, RLE, 8 bits": lambda: encoded(uid.RLELossless, 8),
    "DICOM, JPEG baseline": lambda: encoded(uid.JPEGBaseline8Bit, 8),
    "DICOM, JPEG of 12 bits": lambda: encoded(uid.JPEGExtended12Bit, 12),
    "DICOM, JPEG lossless": lambda: encoded(uid.JPEGLosslessSV1, 12),
    "DICOM, JPEG-LS": lambda: encoded(uid.JPEGLSLossless, 12),
    "DICOM, JPEG 2000": lambda: encoded(uid.JPEG2000Lossless, 12),
    "DICOM, JPEG 2000, high throughput": lambda: encoded(uid.HTJ2KLossless, 8),
}


def main() -> None:
    print(f"{SIDE_PX} × {SIDE_PX} px; {machine()['processor']}, commit `{commit()}`\n")
    print("| file | MB | outcome | memory, MB | CPU, s |\n|---|---|---|---|---|")
    for name, make in CASES.items():
        data = make()
        taken = read_apart(data)
        size = f"{len(data) / 1e6:.3g}"
        print(f"| {name} | {size} | {taken.outcome} | {taken.peak_mb:.0f} | {taken.cpu_s:.1f} |")


if __name__ == "__main__":
    main()
