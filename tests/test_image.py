"""The Dockerfile, built by buildah: what its images hold, and that they run with no privileges."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom.uid import JPEGBaseline8Bit

from chestxray import __version__
from chestxray.inference import BUNDLED, read_bundle
from chestxray.service.http.keys import hash_of, make_key
from factories.dicom_files import COMPRESSED, compressed, phantom
from factories.image import (
    REPOSITORY,
    Builder,
    Container,
    Image,
    Server,
    builder,
    serving,
    what_is_missing,
)
from factories.pacs import free_port
from factories.raw_http import form, post
from factories.servers import is_ready, wait_until

pytestmark = pytest.mark.timeout(900)

EXAMPLE = REPOSITORY / "src" / "chestxray" / "examples" / "pneumonia-1.jpeg"
ENVIRONMENT = "/opt/chestxray"
REVISION = "0123456789abcdef0123456789abcdef01234567"

MAX_ADDED_MB = 250
MAX_MB = 450

NOT_COMPILED = """
import sys, pathlib
import chestxray.cli, chestxray.service.server
for name, module in list(sys.modules.items()):
    cached = getattr(module, "__cached__", None)
    if cached and not pathlib.Path(cached).exists():
        print(name)
"""

TRY_TO_WRITE = """
import os, sys
for place in (*sys.path[1:], "/opt/chestxray", "/tmp", "/var/tmp", os.getcwd(), "/"):
    if not os.path.isdir(place):
        continue
    try:
        open(os.path.join(place, "new"), "w")
    except OSError as exc:
        print(exc.strerror)
    else:
        print("written to", place)
"""


@pytest.fixture(scope="module")
def building() -> Iterator[Builder]:
    if missing := what_is_missing():
        pytest.skip(missing)
    with builder() as made:
        yield made


@pytest.fixture(scope="module")
def image(building: Builder) -> Image:
    """What ``docker build .`` makes."""
    return building.build(VERSION=__version__, REVISION=REVISION)


@pytest.fixture(scope="module")
def container(building: Builder, image: Image) -> Iterator[Container]:
    with building.container(image) as made:
        yield made


@pytest.fixture(scope="module")
def server(container: Container) -> Iterator[Server]:
    """What ``docker run --read-only`` of it without anything else starts."""
    with serving(container) as ready:
        yield ready


def asked(server: Server, method: str, path: str, **options: object) -> httpx.Response:
    url = f"http://127.0.0.1:{server.port}{path}"
    return httpx.request(method, url, timeout=30, **options)  # type: ignore[arg-type]


def predicted(server: Server, **options: object) -> httpx.Response:
    return asked(server, "POST", "/predict", files={"file": EXAMPLE.read_bytes()}, **options)


def log_of(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.read_text(encoding="utf-8").splitlines()]


# --- what the image says of itself


def test_the_image_runs_as_nobody_s_user_on_port_8000_and_names_itself(image: Image) -> None:
    assert image.config["User"] == "10001:10001"
    assert image.config["ExposedPorts"] == {"8000/tcp": {}}
    assert not image.config["Volumes"]
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in image.config["Labels"].items()
    }
    assert labels["title"] == "chestxray"
    assert labels["licenses"] == "MIT"
    assert "Not a medical device" in labels["description"]
    assert (labels["version"], labels["revision"]) == (__version__, REVISION)


def test_no_shell_stands_between_a_signal_and_the_server(image: Image) -> None:
    assert image.config["Entrypoint"] == ["chestxray"]
    assert image.config["Cmd"] == ["serve"]
    assert image.config["Healthcheck"]["Test"][:2] == ["CMD", "python"]


# --- the service in it


def test_the_server_is_process_1_without_any_privilege(server: Server) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8").splitlines()
    )
    assert status["NSpid"].split()[-1] == "1"
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert status["Groups"].split() == []
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_nothing_can_be_written_where_the_server_runs(container: Container) -> None:
    done = container.run(["python", "-c", TRY_TO_WRITE])
    assert set(done.stdout.splitlines()) == {"Read-only file system"}


def test_it_judges_the_example_with_the_bundle_that_ships(server: Server) -> None:
    answer = predicted(server).raise_for_status().json()
    assert answer["label"] == "PNEUMONIA"
    shipped = read_bundle(BUNDLED).sha256
    assert answer["model"]["bundle_sha256"] == shipped
    assert asked(server, "GET", "/metadata").json()["bundle_sha256"] == shipped
    assert "<html" in asked(server, "GET", "/").text  # the reading page is there too


def test_its_log_says_that_it_answers_anyone(server: Server) -> None:
    (warning,) = [entry for entry in log_of(server) if entry["level"] == "WARNING"]
    assert warning["message"] == (
        f"anyone who reaches http://0.0.0.0:{server.port} is answered: no API key is demanded"
    )


def test_with_keys_it_answers_nobody_else_and_has_nothing_to_warn_of(container: Container) -> None:
    key = make_key()
    keys = {"api_keys": f"ward:{hash_of(key)}", "require_api_key": "true"}
    with serving(container, **keys) as guarded:
        assert predicted(guarded).status_code == 401
        assert predicted(guarded, headers={"X-API-Key": key}).status_code == 200
        assert {entry["level"] for entry in log_of(guarded)} == {"INFO"}


def test_with_keys_that_nobody_demands_it_does_not_start(container: Container) -> None:
    done = container.run(container.image.command, {"CHESTXRAY_API_KEYS": f"ward:{hash_of('x')}"})
    assert done.returncode == 2
    assert "set it to true" in done.stderr


def test_several_workers_need_no_more(container: Container) -> None:
    with serving(container, workers=2) as ready:
        assert predicted(ready).json()["label"] == "PNEUMONIA"
        assert 'route="/predict",status="200"} 1.0' in asked(ready, "GET", "/metrics").text
        assert ready.end() == 0


def test_the_health_check_is_well_where_the_server_is_ready_and_only_there(
    container: Container, image: Image, server: Server
) -> None:
    command = image.config["Healthcheck"]["Test"][1:]
    proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    well = container.run(command, {"CHESTXRAY_PORT": str(server.port)} | proxy)
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
    assert container.run(command, {"CHESTXRAY_PORT": str(free_port())}).returncode != 0


def test_sigterm_ends_it_with_0_after_what_is_in_flight_is_answered(
    container: Container, image: Image
) -> None:
    body = form(EXAMPLE.read_bytes())
    with serving(container) as ready:
        in_flight = socket.create_connection(("127.0.0.1", ready.port), timeout=30)
        with closing(in_flight):
            in_flight.sendall(post(len(body), "Expect: 100-continue"))
            # The server asks for the body only after the request has got its place.
            assert in_flight.recv(1000).startswith(b"HTTP/1.1 100")
            os.kill(ready.pid, signal.SIGTERM)
            wait_until(lambda: not is_ready(ready.port))
            check = image.config["Healthcheck"]["Test"][1:]
            assert container.run(check, {"CHESTXRAY_PORT": str(ready.port)}).returncode == 1
            in_flight.sendall(body)
            with closing(HTTPResponse(in_flight)) as answer:
                answer.begin()
                assert answer.status == 200
                assert json.loads(answer.read())["label"] == "PNEUMONIA"
        assert ready.process.wait(60) == 0


# --- other commands in it


def test_it_reads_files_of_every_kind_that_are_mounted(
    container: Container, tmp_path: Path
) -> None:
    for transfer_syntax in COMPRESSED:
        bits = 8 if transfer_syntax == JPEGBaseline8Bit else 12
        stored = phantom(bits).astype(np.uint8 if bits == 8 else np.uint16)
        data = compressed(stored, transfer_syntax, bits=bits)
        (tmp_path / f"{transfer_syntax}.dcm").write_bytes(data)
    (tmp_path / "example.jpeg").write_bytes(EXAMPLE.read_bytes())
    tmp_path.chmod(0o755)
    files = sorted(f"/mnt/{file.name}" for file in tmp_path.iterdir())
    done = container.run(
        ["chestxray", "predict", "--json", "--input-check", "warn", *files],
        mounts={"/mnt": tmp_path},
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["filename"] for answer in answers] == files
    assert all("prediction" in answer for answer in answers)


def test_it_tells_the_version(container: Container) -> None:
    assert container.run(["chestxray", "--version"]).stdout.strip() == __version__


# --- what is in it


def names_in(container: Container, folder: str) -> list[str]:
    return [str(path.relative_to(container.root)) for path in (container.root / folder).rglob("*")]


def test_no_compiler_is_in_the_image(container: Container) -> None:
    for name in ("gcc", "cc", "g++", "clang", "ld", "make"):
        assert container.run(["sh", "-c", f"command -v {name}"]).returncode == 127, name


def test_what_serving_does_not_need_is_not_in_the_environment(container: Container) -> None:
    held = container.run(["python", "-c", "import sys; print(sys.prefix)"])
    assert held.stdout.strip() == ENVIRONMENT
    for module in ("torch", "pytest", "pip", "setuptools", "pynetdicom", "matplotlib", "httpx"):
        assert container.run(["python", "-c", f"import {module}"]).returncode == 1, module
    names = names_in(container, ENVIRONMENT.lstrip("/"))
    assert [name for name in names if re.search(r"/(tests?|test_files)(/|$)", name)] == []
    assert [name for name in names if name.endswith("/bin/pip")] == []


def test_the_sources_are_in_it_as_the_installed_wheel_alone(container: Container) -> None:
    assert not (container.root / "source").exists()
    assert not (container.root / "wheel").exists()
    assert {path.name for path in (container.root / "opt").iterdir()} == {"chestxray"}


def test_everything_that_serving_imports_is_compiled(container: Container) -> None:
    done = container.run(["python", "-c", NOT_COMPILED])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_decoders_that_something_calls_are_in_it(container: Container) -> None:
    package = Path(ENVIRONMENT).relative_to("/") / "lib"
    (folder,) = (container.root / package).glob("python3*/site-packages/imagecodecs")
    assert {file.name.split(".")[0] for file in folder.glob("_*.so")} == {
        *("_shared", "_shared_cython", "_imcd", "_jpeg8", "_jpegls", "_jpeg2k")
    }
    called = container.run(["python", "-c", "import imagecodecs; imagecodecs.tiff_decode(b'')"])
    assert "DelayedImportError: could not import name 'tiff_decode'" in called.stderr


def test_the_image_is_small(container: Container, image: Image) -> None:
    _, *added = image.layers_bytes
    assert sum(added) / 1e6 <= MAX_ADDED_MB
    assert container.root_bytes() / 1e6 <= MAX_MB


# --- the node


def test_the_target_pacs_has_the_node_and_no_more_privileges(building: Builder) -> None:
    image = building.build("pacs")
    assert image.config["User"] == "10001:10001"
    assert image.command[:3] == ["chestxray", "pacs", "run"]
    with building.container(image) as node:
        assert "DICOM node" in node.run(["chestxray", "pacs", "--help"]).stdout
        started = node.run(image.command)
        assert started.returncode == 2
        assert "/etc/chestxray/pacs.toml" in started.stderr
        assert len(started.stderr.splitlines()) == 1
        for module in ("chestxray.pacs.node", "highdicom", "pynetdicom"):
            done = node.run(["python", "-c", f"import {module}"])
            assert (done.returncode, done.stderr) == (0, ""), module
        assert node.run(["python", "-c", "import torch"]).returncode == 1
        (queue,) = [node.root / "var/lib/chestxray"]
        assert (queue.stat().st_uid, queue.stat().st_mode & 0o777) == (10001, 0o700)
