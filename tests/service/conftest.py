"""A real server on a loopback port, in a thread of the test's process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.server import uvicorn_config
from chestxray.service.settings import Settings
from factories.bundles import write_tiny_bundle


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Return as soon as ``condition`` holds; fail when it does not within ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    config = uvicorn_config(app)
    config.port = 0
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


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle)


@pytest.fixture(scope="session")
def settings(tiny_bundle: Path) -> Settings:
    """Limits small enough to reach them quickly."""
    return Settings(
        bundle=tiny_bundle,
        threads=2,
        max_file_bytes=300_000,
        max_body_bytes=1_000_000,
        max_pixels=10_000_000,
        max_files=16,
        queue_size=200,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with served(create_app(settings)) as client:
        yield client
