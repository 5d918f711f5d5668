"""What decoding a picture of the most pixels that are accepted takes in memory, format by format.

    .venv/bin/python benchmarks/decoding_memory.py

Each in a process of its own, in full size; how much more it has resident at the most than before,
and how much the file says that it takes. Some are as few bytes as their format allows, others noise
of as many as are accepted: the file's own bytes are part of the figure only where they are copied.

Then as many clients as may wait send them to a server with the settings of ``deploy/``, all at
once: what its processes have together at the most, and how many are answered.

Does not: make the network's input (``decoding``), or measure speed (``serving``).
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice

import numpy as np
from machine import REPOSITORY, commit, machine
from processes import Server, started
from pydicom import uid
from serving import SERVE

from chestxray.client import Client, ClientError
from chestxray.imaging import open_file

sys.path.append(str(REPOSITORY / "tests"))

from factories import dicom_files, images
from factories.hostile import SIDE_PX, progressive
from factories.images import chunk
from factories.reading_apart import read_apart

KEY = b"\0\1"

DEEP_SIDE_PX = 4472
"""A square of it has the most pixels that are accepted of 64 bits."""

CMYK_SIDE_PX = 4824
"""The same, of a JPEG of four components in several scans."""

CLIENTS = 64

THREADS = 2
"""As in ``deploy/``."""

RETRY_FOR_S = 1800.0
SAMPLED_EACH_S = 0.02


def png(
    colour: int,
    samples: int,
    bits: int = 8,
    before_data: bytes = b"",
    lap: int = 0,
    side_px: int = SIDE_PX,
) -> bytes:
    """Rows of the costliest filter (Paeth); ``lap`` is 1 where they are interlaced."""
    sides = images.header(side_px, side_px, colour, bits, bool(lap))
    rows = [b"\4" + b"\1" * (side_px * samples * bits // 8)] * side_px
    if lap:
        grid = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2)]
        rows = [
            b"\4" + b"\1" * (len(range(x, side_px, right)) * samples * bits // 8)
            for x, right, y, down in [*grid, (0, 1, 1, 2)]
            for _ in range(y, side_px, down)
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
    "PNG, RGBA of 16 bits": lambda: png(images.RGBA, 4, 16, side_px=DEEP_SIDE_PX),
    "PNG, RGBA of 16 bits, interlaced": lambda: png(
        images.RGBA, 4, 16, lap=1, side_px=DEEP_SIDE_PX
    ),
    "JPEG, grey": lambda: jpeg("L", 1),
    "JPEG, colour": lambda: jpeg("RGB", 3),
    "JPEG, colour, progressive": lambda: jpeg("RGB", 3, progressive=True),
    "JPEG, CMYK": lambda: jpeg("CMYK", 4),
    "JPEG, CMYK, progressive, 24 scans": lambda: progressive(CMYK_SIDE_PX, 4, 20, whole=True),
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


def limit_mb() -> float:
    """What the container of ``deploy/`` may have, in MB of a million bytes."""
    text = (REPOSITORY / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")
    (mib,) = re.findall(r"limits: \{memory: (\d+)Mi\}", text)
    return int(mib) * 2**20 / 1e6


@contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """The memory of all its processes, again and again, in MB; all of it once this is left."""
    samples, done = [server.all_memory_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLED_EACH_S):
            try:
                samples.append(server.all_memory_mb())
            except (FileNotFoundError, ProcessLookupError):
                continue  # a process has just ended

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield samples
    finally:
        done.set()
        watching.join()


def all_at_once(files: list[bytes]) -> None:
    """Send them to a server, and say what its processes take."""

    def ask(file: bytes) -> str:
        with Client(server.address, timeout_s=RETRY_FOR_S, retry_for_s=RETRY_FOR_S) as client:
            try:
                client.predict(file, input_check="warn", acquisition="warn", population="warn")
            except ClientError as exc:
                return str(exc)
        return "answered"

    with started(SERVE, "/readyz", {"CHESTXRAY_THREADS": str(THREADS)}) as server:
        begun = time.monotonic()
        with watched(server) as samples, ThreadPoolExecutor(CLIENTS) as pool:
            outcomes = Counter(pool.map(ask, islice(cycle(files), CLIENTS)))
        took_s = time.monotonic() - begun
    told = ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
    print(
        f"\n{CLIENTS} at once, to {THREADS} threads: {told}, in {took_s:.0f} s; "
        f"{samples[0]:.0f} MB idle, {max(samples):.0f} MB at the most, of {limit_mb():.0f} MB"
    )


def main() -> None:
    print(f"{SIDE_PX} × {SIDE_PX} px; {machine()['processor']}, commit `{commit()}`\n")
    print(
        "| file | MB | outcome | memory, MB | said before, MB | CPU, s |\n|---|---|---|---|---|---|"
    )
    files = []
    for name, make in CASES.items():
        data = make()
        files.append(data)
        told_mb = open_file(data).memory_bytes / 1e6
        taken = read_apart(data)
        of_file = f"{len(data) / 1e6:.3g} | {taken.outcome}"
        print(f"| {name} | {of_file} | {taken.peak_mb:.0f} | {told_mb:.0f} | {taken.cpu_s:.1f} |")
    all_at_once(files)


if __name__ == "__main__":
    main()
