"""What ``deploy/`` configures, in loopback: a service that demands a key, nginx, Prometheus.

Does not: need a container engine, or run Grafana, which Debian does not have.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from chestxray.service.http.keys import hash_of, make_key
from factories.bundles import write_tiny_bundle
from factories.pacs import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX_CONF = DEPLOY / "nginx.conf"
T = TypeVar("T")

FRAME = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/chestxray.conf;
}}
"""
"""What a distribution's nginx.conf does, in a folder of the test's."""


def needs_programs(*names: str) -> None:
    """The test is skipped where one of them is not installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")


@dataclass
class Service:
    """A server process that demands a key."""

    port: int
    key: str
    log: Path
    pid: int

    def log_entries(self, request_id: str) -> list[dict[str, object]]:
        lines = self.log.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in whole if entry["request_id"] == request_id]


@dataclass
class Proxy:
    """nginx and where it listens."""

    https_port: int
    http_port: int
    folder: Path
    trusted: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def error_log(self) -> str:
        return (self.folder / "error.log").read_text(encoding="utf-8")

    @property
    def access_log(self) -> list[dict[str, object]]:
        lines = (self.folder / "access.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@contextmanager
def service_process(
    folder: Path, *, bundle: Path | None = None, **settings: str
) -> Iterator[Service]:
    """``chestxray serve`` with a key named ``radiology``; with a tiny bundle unless given one."""
    key = make_key()
    if bundle is None:
        (bundle := folder / "bundle").mkdir()
        write_tiny_bundle(bundle)
    settings = {
        "CHESTXRAY_HOST": "127.0.0.1",
        "CHESTXRAY_PORT": "0",
        "CHESTXRAY_BUNDLE": str(bundle),
        "CHESTXRAY_API_KEYS": f"radiology:{hash_of(key)}",
    } | settings
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "chestxray", "serve"], stderr=stderr, env=os.environ | settings
        )
    try:
        found = wait_for(
            lambda: re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8")),
            unless=process.poll,
        )
        yield Service(int(found[1]), key, log, process.pid)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def nginx(
    folder: Path, service_port: int, change: Callable[[str], str] = lambda text: text
) -> Iterator[Proxy]:
    """nginx with the configuration of ``deploy/`` at ports and in a folder of this test's."""
    needs_programs("nginx", "openssl")
    make_certificate(folder)
    https_port, http_port = free_port(), free_port()
    text = NGINX_CONF.read_text(encoding="utf-8")
    for place, here in {
        # A small buffer, or the kernel would take a whole answer from nginx before it is read.
        "listen 443 ssl http2;": f"listen 127.0.0.1:{https_port} ssl http2 sndbuf=4096;",
        "listen 80;": f"listen 127.0.0.1:{http_port};",
        "server chestxray:8000;": f"server 127.0.0.1:{service_port};",
        "/etc/nginx/tls/": f"{folder}/",
        "/etc/nginx/chestxray.d/": f"{folder}/chestxray.d/",
        "/var/log/nginx/": f"{folder}/",
        "server_name xray.example.org;": "server_name localhost;",
    }.items():
        assert place in text
        text = text.replace(place, here)
    (folder / "chestxray.conf").write_text(change(text), encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # as another it could not enter this folder
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder, user=user), encoding="utf-8")
    process = subprocess.Popen(
        ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]  # noqa: S607
    )
    trusted = ssl.create_default_context(cafile=folder / "chestxray.crt")
    proxy = Proxy(https_port, http_port, folder, trusted)
    try:
        wait_for(lambda: listens(https_port) and listens(http_port), unless=process.poll)
        yield proxy
    finally:
        process.terminate()
        assert process.wait(30) == 0, proxy.error_log


@dataclass
class Prometheus:
    """A running Prometheus."""

    port: int

    def ask(self, path: str, **query: str) -> Any:
        """The ``data`` of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        return httpx.get(url, params=query, timeout=30).raise_for_status().json()["data"]

    def value(self, query: str) -> float | None:
        """What a query gives now; None while there is nothing."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def prometheus(folder: Path, service: Service, key: str) -> Iterator[Prometheus]:
    """Prometheus with the configuration of ``deploy/``, asking ``service`` with ``key``."""
    needs_programs("prometheus")
    file = write_prometheus_files(
        folder,
        key,
        {
            '["chestxray:8000"]': f'["127.0.0.1:{service.port}"]',
            "scrape_interval: 15s": "scrape_interval: 500ms",
            "evaluation_interval: 15s": "evaluation_interval: 500ms",
        },
    )
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={file}"),
                *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: listens(port), unless=process.poll)
        yield Prometheus(port)
    finally:
        process.terminate()
        assert process.wait(30) == 0, (folder / "log").read_text(encoding="utf-8")


def write_prometheus_files(folder: Path, key: str, changes: dict[str, str]) -> Path:
    """What compose.yaml mounts for Prometheus, changed; its configuration's path."""
    shutil.copy(DEPLOY / "prometheus-rules.yaml", folder)
    (folder / "metrics-key").write_text(
        f"{key}\n", encoding="utf-8"
    )  # as `chestxray key` prints it
    text = (DEPLOY / "prometheus.yaml").read_text(encoding="utf-8")
    for there, here in changes.items():
        assert there in text
        text = text.replace(there, here)
    (file := folder / "prometheus.yaml").write_text(text, encoding="utf-8")
    return file


def make_certificate(folder: Path) -> None:
    """``chestxray.crt`` and ``chestxray.key`` for localhost, which trust themselves."""
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subprocess.run(
        [
            *("openssl", *command.split(), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-out", str(folder / "chestxray.crt"), "-keyout", str(folder / "chestxray.key")),
        ],
        check=True,
        capture_output=True,
    )


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_for(
    found: Callable[[], T], *, unless: Callable[[], object] = lambda: None, timeout_s: float = 60
) -> T:
    """What ``found`` returns as soon as that is true; fails after a time, or if ``unless`` is."""
    deadline = time.monotonic() + timeout_s
    while not (result := found()):
        assert unless() is None, "the program has ended"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    return result
