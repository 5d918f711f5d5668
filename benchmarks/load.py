"""Loads a server with wrk and tells what came out.

Does not: start the server, or go on when an answer is not 2xx: a benchmark of refusals is none.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "post.lua"
BOUNDARY = "chestxray-benchmark"
MISSING = "serving is measured with wrk, which is not installed (Debian: apt-get install wrk)"


class LoadError(Exception):
    """wrk is missing, or not every request was answered with 2xx."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw, and the CPU time that wrk itself took."""

    n: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float


def wrk() -> str:
    """Where wrk is. Raises LoadError."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError(MISSING)
    return found


def write_bodies(contents: Sequence[bytes], folder: Path) -> Path:
    """Write a multipart body for each file into ``folder``, new, and return it."""
    folder.mkdir()
    for i, content in enumerate(contents):
        (folder / f"{i}.body").write_bytes(
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
            'name="file"; filename="radiograph.jpeg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n".encode()
            + content
            + f"\r\n--{BOUNDARY}--\r\n".encode()
        )
    return folder


def load(address: str, path: str, *, bodies: Path | None, connections: int, seconds: float) -> Load:
    """Ask for ``path`` (posting ``bodies`` in turn) over ``connections``, each always waiting for
    its answer before it asks again.

    Raises:
        LoadError: see there.
    """
    posted = [] if bodies is None else [str(bodies), str(len(list(bodies.iterdir()))), BOUNDARY]
    before_s = _cpu_of_ended_children_s()
    # whole seconds are all that wrk takes
    told = subprocess.run(
        [
            *(wrk(), "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{max(round(seconds), 1)}s", "--timeout", "120s"),
            *("--script", str(SCRIPT), address, "--", path, *posted),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise LoadError(f"wrk: {(told.stderr or told.stdout).strip()}")
    return parsed(told.stdout, _cpu_of_ended_children_s() - before_s)


def parsed(told: str, cpu_s: float) -> Load:
    """What the script's line of JSON says. Raises LoadError."""
    lines = [line for line in told.splitlines() if line.startswith("{")]
    if len(lines) != 1:
        raise LoadError(f"wrk said: {told.strip()}")
    found = json.loads(lines[0])
    for what in ("bad_statuses", "broken"):
        if n := found.pop(what):
            raise LoadError(f"{n} of {found['n']} requests: {what}")
    if not found["n"]:
        raise LoadError("no request was answered in time")
    return Load(**found, cpu_s=cpu_s)


def _cpu_of_ended_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
