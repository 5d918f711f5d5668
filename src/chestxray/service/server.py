"""The server: one process with uvicorn, and an orderly end.

Does not: start further processes, or end TLS (a reverse proxy does).
"""

from __future__ import annotations

import copy
import logging
import socket
import time
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
    app = create_app(settings, predictor)
    config = uvicorn.Config(
        app,
        log_level=settings.log_level,
        log_config=_log_config(settings.log_level),
        access_log=False,  # it would write down whole queries
        server_header=False,
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
    )
    with _listening_socket(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("serving bundle %s on %s", predictor.manifest.name, url)
        DrainingServer(config, app.state.service).run(sockets=[listener])


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
