"""The server: uvicorn in one process or several, and an orderly end.

Does not: know what is served (``app``), or end TLS (a reverse proxy does).
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from chestxray.errors import ConfigError
from chestxray.inference import BUNDLED, Bundle, Predictor, read_bundle
from chestxray.service.app import create_app
from chestxray.service.connections import Connection
from chestxray.service.logs import configure_logging
from chestxray.service.settings import Settings
from chestxray.service.state import Service
from chestxray.service.supervisor import Supervisor

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 25
"""Longest wait for requests in flight; orchestrators kill 30 s after SIGTERM."""

LINGER_S = 1.0
"""How long the service goes on answering 503 when it is told to end and has nothing in flight:
whoever has sent a request and not been heard yet gets an answer, and load balancers may notice."""

KEEP_ALIVE_S = 75
"""Idle connections are kept longer than proxies and clients keep theirs (nginx 60 s, httpx 5 s), so
that none sends a request into a connection that is being closed."""


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT, says so on ``/readyz``, answers what is in flight, and ends well.

    uvicorn alone stops listening at once, so that a load balancer never sees ``/readyz`` turn, and
    then dies of the signal instead of exiting with 0. A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_from = self._drain_until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.force_exit = self.should_exit
        self.should_exit = True
        self._service.draining = True
        self._drain_from = time.monotonic() + LINGER_S
        self._drain_until = time.monotonic() + DRAIN_TIMEOUT_S

    async def on_tick(self, counter: int) -> bool:
        supervisor = multiprocessing.parent_process()
        if supervisor is not None and not self.should_exit and not supervisor.is_alive():
            logger.error("the supervisor has died: this worker ends")
            self.handle_exit(signal.SIGTERM, None)
        exiting = await super().on_tick(counter)
        now = time.monotonic()
        drained = self._service.idle and now >= self._drain_from
        return exiting and (drained or self.force_exit or now >= self._drain_until)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return when what is in flight has been answered.

    Raises:
        BundleError: the bundle cannot be used.
        ConfigError: the address cannot be listened on.
    """
    bundle = read_bundle(settings.bundle or BUNDLED)
    predictor = Predictor.of(bundle)
    configure_logging(settings.log_level)
    with _listening_socket(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        logger.info("serving bundle %s on %s", predictor.manifest.name, url)
        if not settings.demands_key and not settings.on_loopback:
            logger.warning("anyone who reaches %s is answered: no API key is demanded", url)
        if settings.workers == 1:
            _serve_on(listener, settings, predictor)
        else:
            del predictor  # it has shown that the bundle works; each worker has its own
            # The bundle goes to the workers as it was read: a replacement answers as the others
            # do, whatever has become of the folder since.
            Supervisor(_work, (listener, settings, bundle), n_workers=settings.workers).run()


def _work(listener: socket.socket, settings: Settings, bundle: Bundle) -> None:
    configure_logging(settings.log_level)
    _serve_on(listener, settings, Predictor.of(bundle))


def _serve_on(listener: socket.socket, settings: Settings, predictor: Predictor) -> None:
    app = create_app(settings, predictor)
    DrainingServer(uvicorn_config(app), app.state.service).run(sockets=[listener])


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application, wherever it listens."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        proxy_headers=False,  # nothing here looks at who asks or by which scheme
        access_log=False,  # it would write down whole queries
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=3,  # for what is left after our own draining
    )


def _listening_socket(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {exc.strerror}"
        ) from exc
    # What connections inherit: asyncio would set it only if the socket named its protocol. Without
    # it the body of an answer waits up to 40 ms for the client to acknowledge its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return listener
