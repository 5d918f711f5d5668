"""Reads a file in a process of its own, under limits, and says what that took.

Each is forked from a process that has imported everything, so it costs milliseconds to have one.
"""

import multiprocessing
import re
import resource
import time
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

import imagecodecs

from chestxray.errors import ChestXrayError
from chestxray.imaging import read

CPU_LIMIT_S = 20
MEMORY_LIMIT_BYTES = 2 * 2**30
"""Of address space, above what the resting process has."""


class Taken(NamedTuple):
    """``outcome`` is ``read``, an error's code, or how the process ended; MB are 10^6 bytes."""

    outcome: str
    peak_mb: float
    cpu_s: float


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["chestxray.imaging.reading", "imagecodecs"])
    return context


def read_apart(data: bytes, shrink_to_px: int | None = None) -> Taken:
    """Read a file; ``peak_mb`` is above what the process had before."""
    ours, theirs = _context().Pipe()
    process = _context().Process(target=_read, args=(theirs, shrink_to_px))
    process.start()
    theirs.close()
    with ours:
        ours.send_bytes(data)
        try:
            return Taken(*ours.recv())
        except EOFError:
            process.join()
            return Taken(f"ended with {process.exitcode}", float("inf"), float("inf"))
        finally:
            process.join()
            process.close()


def _read(answers: Connection, shrink_to_px: int | None) -> None:
    data = answers.recv_bytes()
    for decoder in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode", "packbits_decode"):
        getattr(imagecodecs, decoder)  # loads its library
    before = _memory("VmHWM")
    most = _memory("VmSize") + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    begun = time.process_time()
    try:
        read(data, shrink_to_px=shrink_to_px)
        outcome = "read"
    except ChestXrayError as exc:
        outcome = exc.code
    cpu_s = time.process_time() - begun
    answers.send((outcome, (_memory("VmHWM") - before) / 1e6, cpu_s))


def _memory(name: str) -> int:
    """Bytes; not getrusage, whose maximum a process may have from its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
