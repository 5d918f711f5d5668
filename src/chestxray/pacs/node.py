"""The node: a receiver in this process, judges and a sender in others, from start to end.

Does not: do any of their work.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from chestxray.assessment import Registry, read_bundles
from chestxray.errors import (
    ConfigError,
    NodeError,
    UnknownModelError,
    UnknownOperatingPointError,
)
from chestxray.inference import Bundle
from chestxray.pacs.config import NodeConfig
from chestxray.pacs.judging import assessors_of, run_judge
from chestxray.pacs.processes import configure_logging
from chestxray.pacs.receiver import Receiver
from chestxray.pacs.sender import run_sender
from chestxray.pacs.spool import Spool, open_spool
from chestxray.pacs.tls import client_context

logger = logging.getLogger(__name__)

RESTART_PAUSE_S = 0.5
"""Before a dead process is replaced: one that cannot start must not keep the machine busy."""

JUDGE_S = 120.0
"""How long a judge may take for an instance. The dearest that are accepted take some seconds."""

FINISH_ASSOCIATIONS_S = 10.0
"""How long peers may go on sending when the node is told to end."""

FINISH_WORK_S = 10.0
"""How long judges and sender may take for what they have in hand, after that."""

END_TIMEOUT_S = 28
"""From the signal to the end of the node, which should need no more than the two above."""

WATCH_S = 0.2
"""How often the node looks after its processes."""

EXPIRY_S = 60.0
"""How often it is looked for received files that were kept long enough."""


def run(config: NodeConfig) -> None:
    """Be the node until SIGTERM or SIGINT, then return when what is in hand is finished; a second
    signal ends the process.

    Raises:
        BundleError: a bundle cannot be used.
        ConfigError: a route names a bundle that there is not, or an operating point that one of its
            bundles lacks; or TLS cannot be used.
        NodeError: another node works in the folder or it is open to others, or the address cannot
            be listened on.
    """
    stopping = _told_to_end()
    configure_logging()
    node = config.node
    bundles = read_bundles(node.bundles)
    _check(config, Registry.of(bundles))
    keep_s = 3600 * node.keep_received_hours
    destinations = [destination.name for destination in config.destination]
    with open_spool(node.folder, destinations, keep_s=keep_s) as spool:
        receiver = Receiver(config, spool)
        children = _Children(config, bundles, keep_s, spool)
        children.start()
        receiver.start()
        _say_ready(config, bundles, receiver.port)
        children.watch(stopping)
        logger.info("the node ends")
        children.terminate()
        receiver.close(FINISH_ASSOCIATIONS_S)
        children.join(FINISH_WORK_S)
    logger.info("the node has ended")


def _told_to_end() -> threading.Event:
    """Set by SIGTERM or SIGINT. A second one ends the node at once, and so does the end of its
    grace, whatever its threads and processes are at: what they have in hand will be done again."""
    stopping = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        if stopping.is_set():
            for process in multiprocessing.active_children():
                process.kill()
            os._exit(0)
        stopping.set()
        signal.alarm(END_TIMEOUT_S)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, end)
    return stopping


def _check(config: NodeConfig, registry: Registry) -> None:
    for number, route in enumerate(config.route):
        try:
            assessors_of(route, registry)
        except UnknownModelError as exc:
            raise ConfigError(f"route.{number}.bundles: {exc}") from exc
        except UnknownOperatingPointError as exc:
            raise ConfigError(f"route.{number}.operating_point: {exc}") from exc
    for destination in config.destination:
        if destination.tls is not None:
            client_context(destination.tls)


def _say_ready(config: NodeConfig, bundles: Iterable[str], port: int) -> None:
    node = config.node
    if not config.peer:
        logger.warning("nobody may send: the configuration names no peer")
    logger.info(
        "%s listens on %s port %d%s, judging with %s, answering to %s",
        node.ae_title,
        node.host,
        port,
        "" if node.tls is None else " (TLS)",
        ", ".join(bundles),
        ", ".join(destination.name for destination in config.destination),
    )


class _Children:
    """The judges and the sender; one that dies is replaced."""

    def __init__(
        self, config: NodeConfig, bundles: Mapping[str, Bundle], keep_s: float, spool: Spool
    ) -> None:
        self._config, self._bundles, self._keep_s, self._spool = config, bundles, keep_s, spool
        # Not fork: threads of ONNX Runtime do not survive it, and the folder's lock would.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[str, SpawnProcess] = {}
        self._n_started = 0

    def start(self) -> None:
        for _ in range(self._config.node.judges or len(os.sched_getaffinity(0))):
            self._start_judge()
        self._start_sender()

    def watch(self, stopping: threading.Event) -> None:
        """Replace who dies or hangs, and delete what has expired, until ``stopping`` is set."""
        delete_at = 0.0
        while not stopping.is_set():
            sentinels = [process.sentinel for process in self._processes.values()]
            dead = multiprocessing.connection.wait(sentinels, timeout=WATCH_S)
            try:
                if dead:
                    stopping.wait(RESTART_PAUSE_S)
                    self._replace_dead()
                self._kill_stuck()
                if time.monotonic() >= delete_at:
                    self._spool.delete_expired()
                    delete_at = time.monotonic() + EXPIRY_S
            except (OSError, NodeError) as exc:  # the disk is full, or someone is in the way
                logger.error("the node waits: %s", exc)  # noqa: TRY400
                stopping.wait(RESTART_PAUSE_S)

    def terminate(self) -> None:
        for process in self._processes.values():
            process.terminate()

    def join(self, timeout_s: float) -> None:
        """Wait for all, and kill who is late: what it has in hand will be done again."""
        deadline = time.monotonic() + timeout_s
        for name, process in self._processes.items():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                logger.warning("%s takes too long and is killed", name)
                process.kill()
                process.join()

    def _kill_stuck(self) -> None:
        for name, process in self._processes.items():
            if process.is_alive() and self._spool.stuck(name, JUDGE_S):
                logger.error("%s hangs and is killed", name)
                process.kill()
                process.join()

    def _replace_dead(self) -> None:
        dead = [name for name, process in self._processes.items() if not process.is_alive()]
        for name in dead:
            self._spool.crashed(name)
            process = self._processes.pop(name)
            logger.error("%s has ended with %s and is replaced", name, process.exitcode)
            if name == "sender":
                self._start_sender()
            else:
                self._start_judge()

    def _start_judge(self) -> None:
        # A name of its own, so that a judge never has what an earlier one had.
        self._n_started += 1
        name = f"judge {os.getpid()}.{self._n_started}"
        self._start(name, run_judge, name, self._config, self._bundles, self._keep_s)

    def _start_sender(self) -> None:
        self._start("sender", run_sender, self._config, self._keep_s)

    def _start(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        process = self._context.Process(target=work, args=arguments, name=name)
        process.start()
        self._processes[name] = process
