"""A real server on a loopback port, in a thread of the test's process; and how to wait for one."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import httpx
import uvicorn
from fastapi import FastAPI

from chestxray.assessment import Registry
from chestxray.inference import Predictor
from chestxray.service.api.served import Served
from chestxray.service.server import uvicorn_config


def serving(predictor: Predictor) -> Served:
    """One bundle at work, under its own name."""
    return Served(Registry({predictor.manifest.name: predictor}))


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Return as soon as ``condition`` holds; fail when it does not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def address_told(process: subprocess.Popen[str]) -> str:
    """The address that a starting server says in its log; fails where it ends before."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"http://[0-9.]+:\d+", line):
            return found[0]
    raise AssertionError("".join(lines))


def is_ready(port: int) -> bool:
    """Whether a server here accepts radiographs."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False


@contextmanager
def served(app: FastAPI, port: int = 0) -> Iterator[httpx.Client]:
    config = uvicorn_config(app)
    config.port = port
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
