"""Clients that do not read, do not write, or send dust, beside one that behaves.

    .venv/bin/python benchmarks/slow_clients.py --out slow_clients.json

For each crowd: the p99 of the client that behaves against that before the crowd came, the slowest
of the questions to /livez that are asked throughout, what the service took more, and how long it
took to end on SIGTERM with the crowd still there.

Does not: try files that cost much (the corpus does), or a network worse than loopback.
"""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from reliability import Server, arguments, serving, write_section

# after reliability, which makes the factories of the tests importable
from factories.exchanges import Connection
from factories.images import jpeg, smooth
from factories.raw_http import form, post

N_SLOW = 1000
N_ASKED = 300
LIVEZ_EVERY_S = 0.1

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
FILE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)

Crowd = Callable[[int, ExitStack], None]


def connected(port: int, crowd: ExitStack, *, receives_bytes: int | None = None) -> socket.socket:
    connection = crowd.enter_context(socket.socket())
    if receives_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    return connection


def slow_readers(port: int, crowd: ExitStack) -> None:
    for _ in range(N_SLOW):
        connected(port, crowd, receives_bytes=1024).sendall(FILE)


def idle(port: int, crowd: ExitStack) -> None:
    for _ in range(N_SLOW):
        connected(port, crowd)


def slow_readers_and_idle(port: int, crowd: ExitStack) -> None:
    slow_readers(port, crowd)
    idle(port, crowd)


def slow_heads(port: int, crowd: ExitStack) -> None:
    for _ in range(N_SLOW):
        connected(port, crowd).sendall(LIVEZ[:-4])


def slow_bodies(port: int, crowd: ExitStack) -> None:
    for _ in range(N_SLOW):
        connected(port, crowd).sendall(post(1_000_000) + b"--b\r\n")


def pipelines(port: int, crowd: ExitStack) -> None:
    """Thousands of requests in one go, and no answer read."""
    for _ in range(N_SLOW // 10):
        connection = connected(port, crowd, receives_bytes=1024)
        connection.setblocking(False)
        with suppress(OSError):
            connection.sendall(LIVEZ * 5000)


def storm(dust: bytes) -> Crowd:
    """One connection after the other that sends as much dust as is taken, until the crowd goes."""

    def send(port: int, crowd: ExitStack) -> None:
        gone = threading.Event()

        def blow() -> None:
            while not gone.is_set():
                with suppress(OSError), ExitStack() as own:
                    connection = connected(port, own)
                    connection.sendall(CHUNKED)
                    while not gone.is_set():
                        connection.sendall(dust)

        thread = threading.Thread(target=blow)
        thread.start()
        crowd.callback(thread.join)
        crowd.callback(gone.set)

    return send


CROWDS: dict[str, Crowd] = {
    "slow readers": slow_readers,
    "idle": idle,
    "slow readers and idle": slow_readers_and_idle,
    "slow heads": slow_heads,
    "slow bodies": slow_bodies,
    "pipelines": pipelines,
    "chunks of one byte": storm(b"1\r\na\r\n" * 10_000),
    "chunks of 64 bytes": storm((b"40\r\n" + b"a" * 64 + b"\r\n") * 1000),
}


def measured(port: int) -> dict[str, Any]:
    """Every crowd at a service of its own."""
    found = {}
    for name, crowd in CROWDS.items():
        found[name] = _measured(port, crowd)
        print(f"{name:24}", found[name], flush=True)
    return found


def _measured(port: int, crowd: Crowd) -> dict[str, Any]:
    with serving(port, threads=2) as server, ExitStack() as there:
        _asked(server)  # whatever is made at the first request
        before_ms = _asked(server)
        before_mb = server.peak_mb()
        with _livez_asked(server) as livez_s:
            crowd(port, there)
            beside_ms = _asked(server)
        more_mb = server.peak_mb() - before_mb
        exit_code, end_s = server.end()
        errors = server.errors_logged()
    return {
        "p99_ms_before": round(before_ms, 1),
        "p99_ms_beside": round(beside_ms, 1),
        "livez_asked": len(livez_s),
        "livez_slowest_s": round(max(livez_s), 3),
        "more_mb": round(more_mb, 1),
        "exit_code": exit_code,
        "end_s": round(end_s, 2),
        "errors_logged": len(errors),
    }


def _asked(server: Server) -> float:
    """The p99 in ms of one client's questions, until each is answered with 200.

    Slow bodies have their places for two seconds; who gets 429 meanwhile asks again.
    """
    body = form(jpeg(smooth(224, 224)))
    question = post(len(body), path="/predict?input_check=warn") + body
    took_s = []
    with Connection(server.port) as connection:
        for _ in range(N_ASKED):
            begun = time.perf_counter()
            while (status := connection.ask(question).status) == 429:
                pass
            took_s.append(time.perf_counter() - begun)
            if status != 200:
                raise AssertionError(f"a good radiograph got {status}")
    return 1000 * sorted(took_s)[int(0.99 * N_ASKED)]


@contextmanager
def _livez_asked(server: Server) -> Iterator[list[float]]:
    """How long each answer of /livez takes meanwhile, on a connection of its own."""
    took_s: list[float] = []
    gone = threading.Event()

    def ask() -> None:
        while not gone.wait(LIVEZ_EVERY_S):
            begun = time.perf_counter()
            with Connection(server.port) as connection:
                connection.ask(LIVEZ)
            took_s.append(time.perf_counter() - begun)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took_s
    finally:
        gone.set()
        thread.join()


def main() -> None:
    asked = arguments(__doc__, port=8320).parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    begun = time.monotonic()
    crowds = measured(asked.port)
    write_section(asked.out, "slow_clients", {"crowds": crowds}, took_s=time.monotonic() - begun)


if __name__ == "__main__":
    main()
