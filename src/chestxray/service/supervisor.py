"""Several processes that do the same work; one that dies is replaced.

A request is with one process from its first byte to its last, so a process that dies takes only its
own requests with it. What they work with is handed to all of them anew on SIGHUP.

Does not: know what the work is, or end a process by anything but SIGTERM while it has its grace.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Generic, TypeVar

from chestxray.service.metrics import forget_worker, metrics_folder

logger = logging.getLogger(__name__)

RESTART_PAUSE_S, MAX_RESTART_PAUSE_S = 0.5, 30.0
"""Before a dead process is replaced, and where one after the other dies early, twice as long each
time: those that cannot start must not keep the machine busy."""

EARLY_S = 10.0
"""A process that works for longer than this was able to start."""

LOOK_S = 1.0
"""How often it is looked whether a signal has come."""

END_TIMEOUT_S = 29
"""From the signal to the end of all processes, which have a second less by themselves."""


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
        self._workers: dict[SpawnProcess, tuple[Connection, float]] = {}  # and since when
        self._due_s: list[float] = []  # when those that have died are replaced
        self._n_early = 0
        self._stopping = self._renewing = False

    def run(self) -> None:
        """Return when all processes have ended after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._stop)
        on_hangup(self._ask_to_renew)
        with metrics_folder():
            for _ in range(self._n_workers):
                self._add_worker()
            while self._workers or not self._stopping:
                ended = multiprocessing.connection.wait(
                    [worker.sentinel for worker in self._workers], timeout=self._until_due_s()
                )
                for worker in [w for w in self._workers if w.sentinel in ended]:
                    self._bury(worker)
                while self._due_s and self._due_s[0] <= time.monotonic() and not self._stopping:
                    self._due_s.pop(0)
                    self._add_worker()
                if self._renewing and not self._stopping:
                    self._renewing = False
                    self._hand_out(self._renew())

    def _hand_out(self, material: T | None) -> None:
        if material is not None:
            self._material = material
        for renewed, _ in self._workers.values():
            with suppress(OSError):  # it has just died, and its replacement begins with this
                renewed.send(material)

    def _bury(self, dead: SpawnProcess) -> None:
        renewed, started_s = self._workers.pop(dead)
        renewed.close()
        dead.join()
        if self._stopping:
            return
        assert dead.pid is not None  # noqa: S101 - it was started
        forget_worker(dead.pid)
        logger.error("worker %d ended with %s and is replaced", dead.pid, dead.exitcode)
        self._replace_later(worked_s=time.monotonic() - started_s)

    def _replace_later(self, worked_s: float) -> None:
        early = worked_s < EARLY_S
        self._n_early = self._n_early + 1 if early else 0
        pause_s = RESTART_PAUSE_S * 2.0 ** min(max(0, self._n_early - self._n_workers), 16)
        self._due_s.append(time.monotonic() + min(pause_s, MAX_RESTART_PAUSE_S))
        self._due_s.sort()

    def _until_due_s(self) -> float:
        """How long to wait at the most for something to happen."""
        return max(0.0, min([LOOK_S, *(due_s - time.monotonic() for due_s in self._due_s)]))

    def _add_worker(self) -> None:
        theirs, ours = self._context.Pipe(duplex=False)
        arguments = (self._material, theirs, *self._arguments)
        worker = self._context.Process(target=self._work, args=arguments)
        try:
            resource_tracker.ensure_running()  # its own start would let SIGINT through again
            with _kept_from_children(signal.SIGINT, signal.SIGHUP):
                worker.start()
        except BrokenPipeError:  # killed before it had read what it is to do
            logger.error("a worker ended before it began")  # noqa: TRY400
            ours.close()
            self._replace_later(worked_s=0)
            return
        finally:
            theirs.close()
        self._workers[worker] = ours, time.monotonic()
        if self._stopping:  # the signal came while it started, and did not reach it
            worker.terminate()

    def _ask_to_renew(self) -> None:
        self._renewing = True

    def _stop(self, _: int, __: FrameType | None) -> None:
        if self._stopping:
            # The second signal, or the end of the grace: nobody waits any more, not even for a
            # bundle that is being read.
            for worker in self._workers:
                worker.kill()
            raise SystemExit(0)
        self._stopping = True
        signal.alarm(END_TIMEOUT_S)
        for worker in self._workers:
            worker.terminate()


@contextmanager
def _kept_from_children(*numbers: signal.Signals) -> Iterator[None]:
    """Who is started meanwhile never gets these signals, which a terminal sends to everyone in it:
    they are for the supervisor, and would end a process that is still starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
