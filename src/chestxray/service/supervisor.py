"""Several processes that do the same work; one that dies is replaced.

A request is with one process from its first byte to its last, so a process that dies takes only its
own requests with it. What they work with is handed to all of them anew on SIGHUP.

Does not: know what the work is, or end a process by anything but SIGTERM.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from chestxray.service.metrics import forget_worker, metrics_folder

logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 0.5
"""Before a dead process is replaced: one that cannot start must not keep the machine busy."""


T = TypeVar("T")


def on_hangup(renew: Callable[[], None]) -> None:
    """Have SIGHUP call ``renew``; where it says that the terminal was closed, end as on SIGTERM.

    Not under nohup, which is told by SIGHUP being ignored so far: there closing means nothing.
    """
    terminal = None
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        with suppress(OSError):  # there is none
            terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)

    def handle(_: int, __: FrameType | None) -> None:
        if terminal is not None and not os.isatty(terminal):
            signal.raise_signal(signal.SIGTERM)
        else:
            renew()

    signal.signal(signal.SIGHUP, handle)


class Supervisor(Generic[T]):
    """Keeps ``n_workers`` processes at ``work(material, renewed, *arguments)`` until SIGTERM or
    SIGINT.

    The signal is passed on, and every process drains by itself. On SIGHUP ``renew`` is asked for
    new material; it goes through ``renewed`` to those who are at work, and a replacement begins
    with it. None says to them that there is none, and that they stay with the old.
    """

    def __init__(
        self,
        work: Callable[..., None],
        material: T,
        renew: Callable[[], T | None],
        arguments: tuple[Any, ...],
        *,
        n_workers: int,
    ) -> None:
        self._work, self._arguments, self._n_workers = work, arguments, n_workers
        self._material, self._renew = material, renew
        # Not fork: threads of ONNX Runtime do not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[SpawnProcess, Connection] = {}
        self._stopping = self._renewing = False

    def run(self) -> None:
        """Return when all processes have ended after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        on_hangup(self._ask_to_renew)
        with metrics_folder():
            for _ in range(self._n_workers):
                self._add_worker()
            while self._workers:
                ended = multiprocessing.connection.wait(
                    [worker.sentinel for worker in self._workers], timeout=1
                )
                for worker in [w for w in self._workers if w.sentinel in ended]:
                    self._replace(worker)
                if self._renewing and not self._stopping:
                    self._renewing = False
                    self._hand_out(self._renew())

    def _hand_out(self, material: T | None) -> None:
        if material is not None:
            self._material = material
        for renewed in self._workers.values():
            with suppress(OSError):  # it has just died, and its replacement begins with this
                renewed.send(material)

    def _replace(self, dead: SpawnProcess) -> None:
        self._workers.pop(dead).close()
        dead.join()
        if self._stopping:
            return
        assert dead.pid is not None  # noqa: S101 - it was started
        forget_worker(dead.pid)
        logger.error("worker %d ended with %s and is replaced", dead.pid, dead.exitcode)
        time.sleep(RESTART_PAUSE_S)
        self._add_worker()

    def _add_worker(self) -> None:
        while not self._stopping:
            theirs, ours = self._context.Pipe(duplex=False)
            arguments = (self._material, theirs, *self._arguments)
            worker = self._context.Process(target=self._work, args=arguments)
            try:
                worker.start()
            except BrokenPipeError:  # killed before it had read what it is to do
                logger.error("a worker ended before it began")  # noqa: TRY400
                time.sleep(RESTART_PAUSE_S)
                continue
            finally:
                theirs.close()
            self._workers[worker] = ours
            if self._stopping:  # the signal came while it started, and did not reach it
                worker.terminate()
            return

    def _ask_to_renew(self) -> None:
        self._renewing = True

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.terminate()
