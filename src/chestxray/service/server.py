"""The server: uvicorn in one process or several, new bundles on SIGHUP, and an orderly end.

Does not: know what is served (``app``), or end TLS (a reverse proxy does).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection as Pipe
from queue import Empty, SimpleQueue
from types import FrameType

import uvicorn
from fastapi import FastAPI

from chestxray.errors import BundleError, ConfigError
from chestxray.service.api.served import Bundles, Served, read_served
from chestxray.service.api.state import Service
from chestxray.service.app import create_app
from chestxray.service.http.connections import Connection, Room
from chestxray.service.logs import configure_logging
from chestxray.service.metrics import remove_metrics_folder
from chestxray.service.settings import Settings
from chestxray.service.supervisor import Supervisor, on_hangup

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 25
"""Longest wait for requests in flight; orchestrators kill 30 s after SIGTERM."""

END_TIMEOUT_S = 28
"""From the signal to the end of the process, whatever it is at."""

LINGER_S = 1.0
"""How long the service goes on answering 503 when it is told to end and has nothing in flight:
whoever has sent a request and not been heard yet gets an answer, and load balancers may notice."""

KEEP_ALIVE_S = 75
"""Idle connections are kept longer than proxies and clients keep theirs (nginx 60 s, httpx 5 s), so
that none sends a request into a connection that is being closed."""


RENEW_POLL_S = 0.2
"""How often the thread that renews the bundles looks whether the process ends."""

NOT_REPLACED = "the bundles are not replaced: %s"


class DrainingServer(uvicorn.Server):
    """On SIGTERM or SIGINT, says so on ``/readyz``, answers what is in flight, and ends well.

    uvicorn alone stops listening at once, so that a load balancer never sees ``/readyz`` turn, and
    then dies of the signal instead of exiting with 0. A second signal ends the process at once, and
    so does its grace when it is over: a thread that computes for ever is waited for by nobody.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain_from = self._drain_until = 0.0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Not given back: they are ours until the last thread has ended.
        signal.signal(signal.SIGALRM, self.handle_exit)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            # Python would wait for its threads. Nothing of ours is on a disk or half done.
            os._exit(0)
        self.should_exit = True
        signal.alarm(END_TIMEOUT_S)
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
        return exiting and (drained or now >= self._drain_until)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then return when what is in flight has been answered.

    On SIGHUP the bundles are read anew, and answer from when they have shown that they work; where
    one does not, the old ones stay.

    Raises:
        BundleError: a bundle cannot be used.
        ConfigError: the address cannot be listened on, or the bundles do not go together.
    """
    bundles = read_served(settings)
    served = Served.of(bundles)
    configure_logging(settings.log_level)
    with _listening_socket(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _say_who_is_answered(settings, url)
        logger.info("serving bundle %s on %s", _told(bundles), url)
        if settings.workers == 1:
            app = create_app(settings, served)
            service: Service = app.state.service
            # A queue that a signal's handler may put into, also one within another's.
            hangups: SimpleQueue[None] = SimpleQueue()
            on_hangup(partial(hangups.put, None))
            with _renewing(
                partial(_come, hangups), lambda: _serve_anew(service, lambda: read_served(settings))
            ):
                DrainingServer(uvicorn_config(app), service).run(sockets=[listener])
        else:
            del served  # they have shown that they work; each worker has its own
            # Bundles go to the workers as they were read: all of them answer alike, also one that
            # is replaced, whatever has become of the folders since.
            Supervisor(
                _work,
                bundles,
                partial(_read_working, settings),
                (listener, settings),
                n_workers=settings.workers,
            ).run()


def _say_who_is_answered(settings: Settings, url: str) -> None:
    if settings.demands_key:
        logger.info("who reaches %s needs an API key", url)
    elif settings.on_loopback:
        logger.info("anyone on this machine is answered at %s, and nobody else reaches it", url)
    else:
        logger.warning("anyone who reaches %s is answered: no API key is demanded", url)


def _work(bundles: Bundles, renewed: Pipe, listener: socket.socket, settings: Settings) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of a terminal, say: it is for the supervisor
    configure_logging(settings.log_level)
    app = create_app(settings, Served.of(bundles))
    service: Service = app.state.service

    def renew() -> None:
        bundles = renewed.recv()
        _serve_anew(service, lambda: bundles)

    with _renewing(renewed.poll, renew):
        DrainingServer(uvicorn_config(app), service).run(sockets=[listener])
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and not supervisor.is_alive():
        remove_metrics_folder()  # nobody else is left to do it


@contextmanager
def _renewing(due: Callable[[float], bool], renew: Callable[[], None]) -> Iterator[None]:
    """Meanwhile ``renew`` in a thread whenever it is ``due``, which waits for so many seconds."""
    ending = threading.Event()

    def follow() -> None:
        with suppress(EOFError):  # the supervisor is gone
            while not ending.is_set():
                if due(RENEW_POLL_S):
                    renew()

    # Waited for: Python cannot end under a thread in which ONNX Runtime is at work.
    thread = threading.Thread(target=follow, name="renew")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _come(hangups: SimpleQueue[None], timeout_s: float) -> bool:
    """Whether any has come in that time; those that have come together are one."""
    try:
        hangups.get(timeout=timeout_s)
    except Empty:
        return False
    with suppress(Empty):
        while True:
            hangups.get_nowait()
    return True


def _serve_anew(service: Service, read: Callable[[], Bundles | None]) -> None:
    """Replace the bundles of a running service, or say in log and metrics that they stay."""
    try:
        bundles = read()
        if bundles is not None:
            service.serve(Served.of(bundles, service.served))
            logger.info("serving bundle %s from now on", _told(bundles))
    except (BundleError, ConfigError) as exc:
        logger.error(NOT_REPLACED, exc)  # noqa: TRY400
        bundles = None
    except Exception as exc:  # noqa: BLE001 - the last resort: what is served goes on
        logger.error(NOT_REPLACED, f"unexpected {type(exc).__name__}")  # noqa: TRY400
        bundles = None
    service.metrics.reloaded(replaced=bundles is not None)


def _told(bundles: Bundles) -> str:
    """Their names, with the beginning of each one's SHA-256."""
    return ", ".join(f"{name} {of.sha256[:12]}" for name, of in bundles.answering.items())


def _read_working(settings: Settings) -> Bundles | None:
    """The bundles, if all of them work; otherwise None, and the reason in the log."""
    try:
        bundles = read_served(settings)
        Served.of(bundles)
    except (BundleError, ConfigError) as exc:
        logger.error(NOT_REPLACED, exc)  # noqa: TRY400
        return None
    except Exception as exc:  # noqa: BLE001 - the last resort: the workers go on
        logger.error(NOT_REPLACED, f"unexpected {type(exc).__name__}")  # noqa: TRY400
        return None
    return bundles


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application, wherever it listens."""
    settings: Settings = app.state.settings
    max_files = allow_files(2 * settings.max_connections)
    room = Room(min(settings.max_connections, max_files // 2))
    connection = partial(Connection, room=room, answer_timeout_s=settings.answer_timeout_s)
    return uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type] # it makes one
        # Those who are accepted in one turn of the event loop are files before they are counted;
        # with one too many uvloop would stop listening.
        backlog=min(2048, max_files // 4),
        ws="none",
        log_config=None,
        proxy_headers=False,  # nothing here looks at who asks or by which scheme
        access_log=False,  # it would write down whole queries
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=2,  # for what is left after our own draining
    )


def allow_files(n_wanted: int) -> int:
    """Let this process have so many files open, if it may; how many it may have, sockets included.

    Shells allow 1,024 by default, and more to who asks.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return n_wanted
    if soft < n_wanted:
        soft = n_wanted if hard == resource.RLIM_INFINITY else min(n_wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


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
