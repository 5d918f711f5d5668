"""The server: uvicorn in one process or several, and an orderly end.

Does not: know what is served (``app``), or end TLS (a reverse proxy does).
"""

from __future__ import annotations

import copy
import logging
import logging.config
import multiprocessing
import multiprocessing.connection
import signal
import socket
import time
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import uvicorn
import uvicorn.config

from chestxray.errors import ConfigError
from chestxray.inference import BUNDLED, Predictor
from chestxray.service.app import Service, create_app
from chestxray.service.settings import Settings

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 25
"""Longest wait for requests in flight; orchestrators kill 30 s after SIGTERM."""

RESTART_PAUSE_S = 0.5
"""Before a dead process is replaced: one that cannot start must not keep the machine busy."""


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT, says so on ``/readyz``, answers what is in flight, and ends well.

    uvicorn alone stops listening at once, so that a load balancer never sees ``/readyz`` turn, and
    then dies of the signal instead of exiting with 0. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True
        self._service.draining = True
        self._drain_until = time.monotonic() + DRAIN_TIMEOUT_S

    async def on_tick(self, counter: int) -> bool:
        exiting = await super().on_tick(counter)
        waited = self.force_exit or time.monotonic() >= self._drain_until
        return exiting and (waited or self._service.idle)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return when what is in flight has been answered.

    Raises:
        BundleError: the bundle cannot be used.
        ConfigError: the address cannot be listened on.
    """
    predictor = Predictor.load(settings.bundle or BUNDLED)
    logging.config.dictConfig(_log_config(settings.log_level))
    with _listening_socket(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("serving bundle %s on %s", predictor.manifest.name, url)
        if settings.workers == 1:
            _serve_on(listener, settings, predictor)
        else:
            del predictor  # it has shown that the bundle works; each worker has its own
            Supervisor(listener, settings).run()


def _serve_on(
    listener: socket.socket, settings: Settings, predictor: Predictor | None = None
) -> None:
    logging.config.dictConfig(_log_config(settings.log_level))
    app = create_app(settings, predictor)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # it would write down whole queries
        server_header=False,
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
    )
    DrainingServer(config, app.state.service).run(sockets=[listener])


class Supervisor:
    """Several processes that accept from one socket; one that dies is replaced.

    A request is with one process from its first byte to its last, so a process that dies takes only
    its own requests with it. SIGTERM and SIGINT are passed on, and every process drains by itself.
    """

    def __init__(self, listener: socket.socket, settings: Settings) -> None:
        self._listener, self._settings = listener, settings
        # Not fork: threads of ONNX Runtime do not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[SpawnProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Return when all processes have ended after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for _ in range(self._settings.workers):
            self._add_worker()
        while self._workers:
            ended = multiprocessing.connection.wait([w.sentinel for w in self._workers], timeout=1)
            for worker in [w for w in self._workers if w.sentinel in ended]:
                self._workers.remove(worker)
                if not self._stopping:
                    time.sleep(RESTART_PAUSE_S)
                    self._add_worker()

    def _add_worker(self) -> None:
        if self._stopping:
            return
        worker = self._context.Process(target=_serve_on, args=(self._listener, self._settings))
        worker.start()
        self._workers.append(worker)
        if self._stopping:  # the signal came while it started, and did not reach it
            worker.terminate()

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._stopping = True
        for worker in self._workers:
            worker.terminate()


def _log_config(level: str) -> dict[str, Any]:
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    ours = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    config["loggers"] |= {
        "chestxray": ours,
        "python_multipart": {"level": "ERROR"},  # its warnings quote what a broken body holds
    }
    return config


def _listening_socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {exc.strerror}"
        ) from exc
