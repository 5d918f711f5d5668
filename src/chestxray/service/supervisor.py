"""Several processes that do the same work; one that dies is replaced.

A request is with one process from its first byte to its last, so a process that dies takes only its
own requests with it.

Does not: know what the work is, or end a process by anything but SIGTERM.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import signal
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from chestxray.service.metrics import forget_worker, metrics_folder

logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 0.5
"""Before a dead process is replaced: one that cannot start must not keep the machine busy."""


class Supervisor:
    """Keeps ``n_workers`` processes at ``work(*arguments)`` until SIGTERM or SIGINT.

    The signal is passed on, and every process drains by itself.
    """

    def __init__(
        self, work: Callable[..., None], arguments: tuple[Any, ...], *, n_workers: int
    ) -> None:
        self._work, self._arguments, self._n_workers = work, arguments, n_workers
        # Not fork: threads of ONNX Runtime do not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[SpawnProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Return when all processes have ended after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        with metrics_folder():
            for _ in range(self._n_workers):
                self._add_worker()
            while self._workers:
                ended = multiprocessing.connection.wait(
                    [worker.sentinel for worker in self._workers], timeout=1
                )
                for worker in [w for w in self._workers if w.sentinel in ended]:
                    self._replace(worker)

    def _replace(self, dead: SpawnProcess) -> None:
        self._workers.remove(dead)
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
            worker = self._context.Process(target=self._work, args=self._arguments)
            try:
                worker.start()
            except BrokenPipeError:  # killed before it had read what it is to do
                logger.error("a worker ended before it began")  # noqa: TRY400
                time.sleep(RESTART_PAUSE_S)
                continue
            self._workers.append(worker)
            if self._stopping:  # the signal came while it started, and did not reach it
                worker.terminate()
            return

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.terminate()
