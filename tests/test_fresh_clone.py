"""What a newcomer types, typed: the README's commands in a fresh copy of the repository."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
READY_WITHIN_S = 300

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks or would, as they are now, somewhere else."""
    if not shutil.which("git") or not shutil.which("make"):
        pytest.skip("needs git and make")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    folder = tmp_path_factory.mktemp("clone")
    for name in listed.stdout.decode().split("\0"):
        source = REPOSITORY / name
        if name and source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def served(clone: Path) -> Iterator[tuple[Path, str]]:
    """``make serve`` in the clone, once it is ready: the folder and the address."""
    port = _free_port()
    with (clone / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "serve", f"PORT={port}"],  # noqa: S607
            cwd=clone,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + READY_WITHIN_S
    try:
        while not _is_ready(address):
            assert process.poll() is None, (clone / "serve.log").read_text()
            assert time.monotonic() < deadline, (clone / "serve.log").read_text()
            time.sleep(0.2)
        yield clone, address
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_make_serve_installs_no_pytorch_and_answers_the_readmes_curl(
    served: tuple[Path, str],
) -> None:
    clone, address = served
    modules = "torch", "matplotlib"
    for module in modules:
        found = subprocess.run(
            [clone / ".venv/bin/python", "-c", f"import {module}"], capture_output=True, check=False
        )
        assert found.returncode != 0, f"{module} is in the environment that serves"

    (curl,) = [line for line in readme_commands() if line.startswith("curl")]
    answer = json.loads(shell(curl.replace("http://127.0.0.1:8000", address), clone))
    assert answer["label"] == "PNEUMONIA"
    assert answer["probability"] >= answer["threshold"]


def test_the_readmes_command_lines_run_in_the_served_environment(served: tuple[Path, str]) -> None:
    clone, _ = served
    commands = [line for line in readme_commands() if line.startswith(".venv/bin/chestxray")]
    assert commands
    for command in commands:
        assert shell(command, clone)


def test_make_serve_installs_nothing_twice(served: tuple[Path, str]) -> None:
    clone, _ = served
    again = subprocess.run(
        ["make", "--dry-run", "serve"],  # noqa: S607
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install" not in again.stdout


def shell(command: str, folder: Path) -> str:
    """What ``command``, as typed, prints."""
    done = subprocess.run(
        ["bash", "-c", command],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def readme_commands() -> list[str]:
    """The lines of the README's ``bash`` blocks, less those marked ``not-run="reason"``."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash *\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert blocks, f"{sys.argv[0]}: the README shows no commands"
    joined = "".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]
