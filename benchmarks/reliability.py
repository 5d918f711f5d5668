"""What fuzzing, faults and soak share: the real server, watched, and the one report that they fill.

Importing this makes the factories of the tests importable: mutants and oracles are theirs.

Does not: send anything.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import REPOSITORY, commit, machine, versions
from processes import resident_mb_of

sys.path.append(str(REPOSITORY / "tests"))

REPORT = REPOSITORY / "docs" / "reports" / "reliability.json"
CHESTXRAY = REPOSITORY / ".venv" / "bin" / "chestxray"

READY_WITHIN_S = 60.0
END_WITHIN_S = 60.0
POLL_S = 0.02


class NotReadyError(Exception):
    """The server does not start; with what it said."""


@dataclass(slots=True)
class Server:
    """A server as a user would start it, in processes of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def workers(self) -> list[int]:
        """The processes that serve: itself, or what its supervisor has started."""
        listed = _read(self.process.pid, f"task/{self.process.pid}/children").split()
        spawned = [pid for pid in map(int, listed) if "spawn_main" in _read(pid, "cmdline")]
        return spawned or [self.process.pid]

    def memory_mb(self) -> dict[int, float]:
        """Resident memory of each worker, in MB of a million bytes."""
        return {pid: resident_mb_of(_read(pid, "status")) for pid in self.workers()}

    def peak_mb(self) -> float:
        """The most that any worker has had resident since it started."""
        return max(peak_mb_of(pid) for pid in self.workers())

    def kill_a_worker(self, choice: int) -> int:
        """SIGKILL for one of the workers, if there are several; its pid."""
        workers = sorted(self.workers())
        pid = workers[choice % len(workers)]
        os.kill(pid, signal.SIGKILL)
        return pid

    def end(self) -> tuple[int, float]:
        """SIGTERM; the exit code (-9 where it had to be killed), and the seconds until its end."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.process.wait(), time.monotonic() - begun

    def errors_logged(self) -> list[str]:
        """What it has logged as an error, or in no form that it should; not of a killed worker."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if not _is_harmless(line)]


def peak_mb_of(pid: int | str) -> float:
    """VmHWM in /proc/PID/status, in MB of a million bytes; ``self`` is this process."""
    found = re.search(r"VmHWM:\s*(\d+)", _read(pid, "status"))
    return int(found[1]) * 1024 / 1e6 if found else 0.0


@contextmanager
def serving(
    port: int, *, bundles: Sequence[str | Path] = (), workers: int = 1, **settings: object
) -> Iterator[Server]:
    """`chestxray serve` on ``port`` with ``settings`` from its environment and no others.

    Raises:
        NotReadyError: it ends, or is not ready in time.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHESTXRAY_")}
    environment |= {f"CHESTXRAY_{name.upper()}": str(value) for name, value in settings.items()}
    command = [str(CHESTXRAY), "serve", "--port", str(port), "--workers", str(workers)]
    for bundle in bundles:
        command += ["--bundle", str(bundle)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, env=environment, stderr=stderr)
        server = Server(process, port, log)
        try:
            _wait_until_ready(server, workers)
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(END_WITHIN_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def write_section(
    out: Path, name: str, facts: Mapping[str, Any], *, took_s: float, command: str | None = None
) -> None:
    """Put ``facts`` and what they belong to into the report, in place of the section's old ones."""
    report = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    report[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit(),
        "command": command or shlex.join([".venv/bin/python", *sys.argv]),
        "took_s": round(took_s, 1),
        "machine": machine(),
        "versions": versions(),
        **facts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def arguments(description: str | None, *, port: int) -> argparse.ArgumentParser:
    """The options that the three programs have."""
    asked = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--out", type=Path, default=REPORT, help="JSON report to fill [committed]")
    asked.add_argument("--port", type=int, default=port, help=f"to serve on [{port}]")
    return asked


def _wait_until_ready(server: Server, workers: int) -> None:
    from factories.exchanges import Connection  # noqa: PLC0415 - found after this module's import

    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with Connection(server.port) as connection:
                if connection.ask(request).status == 200 and len(server.workers()) == workers:
                    return
        except OSError:
            pass
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise NotReadyError(server.log.read_text(encoding="utf-8", errors="replace"))
        time.sleep(POLL_S)


def _is_harmless(line: str) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return not line.strip()
    killed = "ended with -9 and is replaced" in record["message"]
    return record["level"] not in {"ERROR", "CRITICAL"} or killed


def _read(pid: int | str, name: str) -> str:
    try:
        return (Path("/proc") / str(pid) / name).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has just ended
