"""Reads a file in a process of its own, under limits, and says what that took.

Each is forked from a process that has imported everything, so it costs milliseconds to have one.
What it takes in the decoder's process, which it has besides, counts.
"""

import multiprocessing
import os
import re
import resource
import time
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np

from chestxray.errors import ChestXrayError
from chestxray.imaging import read
from chestxray.imaging.dicom import decoder, is_dicom

CPU_LIMIT_S = 20
MEMORY_LIMIT_BYTES = 2 * 2**30
"""Of address space, above what the resting process has."""

SAMPLED_EACH_S = 0.005

SMALL_FRAME = imagecodecs.jpegls_encode(np.zeros((1, 1), np.uint8))


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
    """Read a file; ``peak_mb`` is above what the processes had before."""
    ours, theirs = _context().Pipe()
    process = _context().Process(target=_read, args=(theirs, shrink_to_px))
    process.start()
    theirs.close()
    with ours:
        ours.send_bytes(data)
        try:
            pids = ours.recv()
            before = most = sum(map(_share, pids))
            ours.send_bytes(b"begin")
            while not ours.poll(SAMPLED_EACH_S):
                most = max(most, sum(map(_share, pids)))
            outcome, peak_mb, cpu_s = ours.recv()
            return Taken(outcome, max(peak_mb, (most - before) / 1e6), cpu_s)
        except EOFError:
            process.join()
            return Taken(f"ended with {process.exitcode}", float("inf"), float("inf"))
        finally:
            process.join()
            process.close()


def _read(answers: Connection, shrink_to_px: int | None) -> None:
    data = answers.recv_bytes()
    imagecodecs.packbits_decode(b"")  # loads its library
    pids = [os.getpid()]
    if is_dicom(data):
        decoder.decode("jpegls", SMALL_FRAME, 1, 1, "u1")
        pids += _children()
    before = _memory("VmHWM")
    most = _memory("VmSize") + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    answers.send(pids)
    answers.recv_bytes()
    begun = time.process_time() + sum(map(_cpu_s, pids[1:]))
    try:
        read(data, shrink_to_px=shrink_to_px)
        outcome = "read"
    except ChestXrayError as exc:
        outcome = exc.code
    ended = time.process_time()
    peak_mb = (_memory("VmHWM") - before) / 1e6
    decoder.end()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended += children.ru_utime + children.ru_stime
    answers.send((outcome, peak_mb, ended - begun))


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()]


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def _share(pid: int) -> int:
    """Bytes that a process has resident, and its share of what several have; 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"Pss:\s*(\d+) kB", rollup)
    return 0 if found is None else int(found[1]) * 1024


def _memory(name: str) -> int:
    """Bytes; not getrusage, whose maximum a process may have from its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{name}:\s*(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
