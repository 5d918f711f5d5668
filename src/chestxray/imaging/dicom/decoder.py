"""Has compressed frames decoded in processes that can be killed.

The walks through a frame (``codecs``) bound what they know of; a library may still take minutes or
gigabytes for a frame of a few bytes, and nothing ends a thread. So on Linux the libraries run in
processes of their own (``decoder_process``), each frame under limits that follow from the size of
its picture. One that breaks them costs its process and is refused; the next frame has a new one.

A process is started when none is idle, and kept: there are as many as threads have decoded at the
same time. Frame and words pass through memory that both sides have. A process ends when who started
it does, in whatever way.

Does not: look into a frame.
"""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestxray.errors import DamagedFileError, TooCostlyError
from chestxray.imaging.dicom.decoder_process import DAMAGED, DONE, JOB, READY, decode_into

MEMORY_BYTES, MEMORY_BYTES_PER_PIXEL, MEMORY_BYTES_PER_BYTE = 64 << 20, 8, 3
"""What a codec may take. OpenJPEG, which takes the most, has 4 bytes of each pixel, as many of a
tile's, and the coded bytes once or twice."""

CPU_S, CPU_S_PER_PIXEL = 0.3, 0.04e-6
CPU_S_PER_BYTE = {"jpeg2k": 0.4e-6, "jpegls": 0.1e-6, "jpeg8": 0.1e-6}
"""Four times and more what radiographs, noise and drawings took on one core of an AMD EPYC: 0.15
microseconds of each byte at the most with OpenJPEG, and with the others 0.03 of each pixel."""

PATIENCE_S = 90.0
"""How long is waited for a process, be it to start: a machine may be busy, but not for ever."""

KEPT_BYTES = 32 << 20
"""Of the memory for frame and words: to have it anew costs more time than anything else here."""

_STEP_BYTES = 4 << 20

_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}

_SCRIPT = Path(__file__).with_name("decoder_process.py")


def decode(codec: str, frame: memoryview, rows: int, columns: int, dtype: str) -> NDArray[Any]:
    """The words (rows, columns) of a frame by imagecodecs' ``codec``: jpeg8, jpegls or jpeg2k.

    ``dtype`` is that of what the codec makes, of one byte or two.

    Raises:
        DamagedFileError: it cannot be decoded, or is another picture.
        TooCostlyError: it takes more time or memory than a picture of its size needs.
        OSError: no process can be started.
    """
    if sys.platform != "linux":
        return _decode_here(codec, frame, rows, columns, dtype)
    decoder = _decoders.take()
    try:
        return decoder.decode(codec, frame, rows, columns, dtype)
    finally:
        _decoders.give_back(decoder)


def end() -> None:
    """End the processes that decode, for whoever ends without leaving Python."""
    _decoders.end()


def _decode_here(
    codec: str, frame: memoryview, rows: int, columns: int, dtype: str
) -> NDArray[Any]:
    words: NDArray[Any] = np.empty((rows, columns), dtype)
    try:
        decode_into(words, codec, frame)
    except (RuntimeError, ValueError, MemoryError) as exc:
        raise _damaged() from exc
    return words


def _damaged() -> DamagedFileError:
    return DamagedFileError("the compressed frame is damaged")


def _too_costly() -> TooCostlyError:
    return TooCostlyError("the picture takes more time or memory than one of its size needs")


class _Room:
    """Memory that is shared with a process: ``mapped``, of which a process has the ``file``."""

    def __init__(self) -> None:
        self.file = os.fdopen(os.memfd_create("frame", os.MFD_CLOEXEC), "r+b", buffering=0)
        self._resize(_STEP_BYTES)

    def fit(self, n_bytes: int) -> None:
        if n_bytes > len(self.mapped):
            self._resize(-(-n_bytes // _STEP_BYTES) * _STEP_BYTES)

    def trim(self) -> None:
        if len(self.mapped) > KEPT_BYTES:
            self._resize(KEPT_BYTES)

    def close(self) -> None:
        self.mapped.close()
        self.file.close()

    def _resize(self, n_bytes: int) -> None:
        self.file.truncate(n_bytes)
        self.mapped = mmap.mmap(self.file.fileno(), n_bytes)


class _Decoder:
    """A process, what it is asked over, and the memory that both have."""

    def __init__(self) -> None:
        self._room = _Room()
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, sys.path))  # imagecodecs is where this process has it
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with its:
            self._process = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-P", str(_SCRIPT), str(self._room.file.fileno())],
                env={**os.environ, **one_thread, "PYTHONPATH": path},
                pass_fds=(self._room.file.fileno(),),
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries write what they find there
            )
        self._socket.settimeout(PATIENCE_S)
        if self._socket.recv(1) != READY:
            self.end()
            raise OSError("the process that decodes cannot be started")

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def decode(
        self, codec: str, frame: memoryview, rows: int, columns: int, dtype: str
    ) -> NDArray[Any]:
        try:
            answer = self._ask(codec, frame, rows, columns, dtype)
        except OSError:  # it took too long, or has ended
            answer = b""
        except BaseException:
            self.end()
            raise
        if not answer:
            raise _damaged() if self.end() in _CRASHES else _too_costly()
        try:
            if answer != DONE:
                raise _damaged() if answer == DAMAGED else _too_costly()
            words = np.frombuffer(self._room.mapped, dtype, rows * columns).copy()
            return words.reshape(rows, columns)
        finally:
            self._room.trim()

    def _ask(self, codec: str, frame: memoryview, rows: int, columns: int, dtype: str) -> bytes:
        n_pixels, n_bytes = rows * columns, len(frame)
        n_words = n_pixels * np.dtype(dtype).itemsize
        memory_bytes = MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * n_pixels
        memory_bytes += MEMORY_BYTES_PER_BYTE * n_bytes
        n_coded = min(n_bytes, 2 * n_words)  # who codes a picture with more, pads
        cpu_s = CPU_S + CPU_S_PER_PIXEL * n_pixels + CPU_S_PER_BYTE[codec] * n_coded
        self._room.fit(n_words + n_bytes)
        self._room.mapped[n_words : n_words + n_bytes] = frame
        size, what = len(self._room.mapped), (codec.encode(), rows, columns, dtype.encode())
        self._socket.settimeout(PATIENCE_S)
        self._socket.send(JOB.pack(size, *what, n_bytes, memory_bytes, cpu_s))
        return self._socket.recv(1)

    def kill(self) -> int:
        """End the process, if it has not ended; how it did."""
        self._process.kill()
        return self._process.wait()

    def end(self) -> int:
        """As ``kill``, and nothing is left of it."""
        returncode = self.kill()
        self._let_go()
        return returncode

    def forget(self) -> None:
        """In a process that was forked: the decoder is its parent's."""
        self._process.returncode = 0
        self._let_go()

    def _let_go(self) -> None:
        self._socket.close()
        self._room.close()


class _Decoders:
    """All of this process, and those that nobody asks anything at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[_Decoder] = set()
        self._idle: list[_Decoder] = []

    def take(self) -> _Decoder:
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.lives:
                    return decoder
                self._all.remove(decoder)
                decoder.end()
        decoder = _Decoder()
        with self._lock:
            self._all.add(decoder)
        return decoder

    def give_back(self, decoder: _Decoder) -> None:
        with self._lock:
            self._idle.append(decoder)

    def end(self) -> None:
        """Leave no process behind. What they are at is nobody's any more."""
        with self._lock:
            for decoder in self._all:
                decoder.kill()

    def forget(self) -> None:
        """In a process that was forked: they are its parent's."""
        for decoder in self._all:
            decoder.forget()
        self.__init__()  # type: ignore[misc]


_decoders = _Decoders()
atexit.register(end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_decoders.forget)
