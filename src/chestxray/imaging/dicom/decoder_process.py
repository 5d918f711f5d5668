"""What a decoder's process does: one compressed frame after the other, under limits, until it ends.

A script, which ``decoder`` starts as ``python decoder_process.py FILE`` with a socket as its stdin,
so that it loads nothing but NumPy and the codecs. FILE is a descriptor of shared memory: the words
of the picture lie there, and behind them the frame. A job says how large they are, and how much
memory and CPU time the codec may take beyond what the process has and has used; one that takes more
gets an error or is killed. The end of the socket is the end of the process.

Does not: believe a frame (``codecs`` has looked at its header, and the words are as large as that
says), or outlive who started it by more than the job at hand.
"""

from __future__ import annotations

import mmap
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

JOB = struct.Struct("<Q8sQQ2sQQd")
"""Bytes of the file; the codec, rows, columns and type of the words, bytes of the frame; bytes of
memory and seconds of CPU that it may take."""

READY, DONE, DAMAGED, TOO_COSTLY = b"r", b"d", b"b", b"c"
"""What is answered."""

_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal, or who stops a service, may send them to each of its processes, and what is at work
is still to be answered."""


def main() -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # that of the thread which started it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash writes no picture to disk
    jobs, file = socket.socket(fileno=0), int(sys.argv[1])
    room = mmap.mmap(-1, mmap.PAGESIZE)
    jobs.send(READY)
    while job := jobs.recv(JOB.size):
        size, *asked, memory_bytes, cpu_s = JOB.unpack(job)
        if size != len(room):
            room.close()
            room = mmap.mmap(file, size)
        with _limits(memory_bytes, cpu_s):
            answer = _answer(room, *asked)
        jobs.send(answer)


def decode_into(words: NDArray[Any], codec: str, frame: memoryview) -> None:
    """Decode a frame into the words (rows, columns) that it is known to have.

    Raises:
        RuntimeError, ValueError: it is damaged, or another picture.
        MemoryError: the codec asks for more than there is.
    """
    getattr(imagecodecs, f"{codec}_decode")(frame, out=words)


def _answer(
    room: mmap.mmap, codec: bytes, rows: int, columns: int, dtype: bytes, n_bytes: int
) -> bytes:
    words = np.frombuffer(room, dtype.decode(), rows * columns).reshape(rows, columns)
    frame = memoryview(room)[words.nbytes : words.nbytes + n_bytes]
    try:
        decode_into(words, codec.rstrip(b"\0").decode(), frame)
    except MemoryError:
        return TOO_COSTLY
    except (RuntimeError, ValueError):
        return DAMAGED
    return DONE


@contextmanager
def _limits(memory_bytes: int, cpu_s: float) -> Iterator[None]:
    """SIGPROF ends the process after so much CPU time from now on."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib would be loaded for it
        most = int(statm.read().split()[0]) * mmap.PAGESIZE + memory_bytes
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = most if soft == resource.RLIM_INFINITY else min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main()
