"""A server as a process of its own: started as a user would, watched through Linux's /proc.

Does not: load it (``load``).
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PORTS = range(8200, 8300)
START_WITHIN_S = 60
STOP_WITHIN_S = 60
QUIET_FOR_S = 0.3
QUIET_WITHIN_S = 120

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server does not start, or does not become quiet."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: itself and the processes that it has started."""

    address: str
    pid: int
    ready_s: float
    """From the start of the process to the first 200."""

    def cpu_s(self) -> float:
        """CPU time so far, of all its processes."""
        return sum(cpu_s_of(_read(pid, "stat")) for pid in self._pids())

    def memory_mb(self) -> float:
        """Resident memory of its largest process: a worker always is."""
        return max(resident_mb_of(_read(pid, "status")) for pid in self._pids())

    def all_memory_mb(self) -> float:
        """Resident memory of all its processes; what several have counts once."""
        return sum(share_mb_of(_read(pid, "smaps_rollup")) for pid in self._pids())

    def wait_until_quiet(self) -> None:
        """Return when it computes nothing any more: what clients gave up on, it may still do.

        Raises:
            ServerError: it does not stop.
        """
        deadline = time.monotonic() + QUIET_WITHIN_S
        before, now = -1.0, self.cpu_s()
        while now - before > _TICK_S:
            if time.monotonic() > deadline:
                raise ServerError(f"{self.address} still computes")
            time.sleep(QUIET_FOR_S)
            before, now = now, self.cpu_s()

    def _pids(self) -> Iterator[int]:
        found = [self.pid]
        while found:
            pid = found.pop()
            yield pid
            for task in (Path("/proc") / str(pid) / "task").iterdir():  # any thread may start some
                found += [int(child) for child in _read(pid, f"task/{task.name}/children").split()]


def cpu_s_of(stat: str) -> float:
    """User and system time in /proc/PID/stat (proc(5), fields 14 and 15)."""
    after_name = stat.rpartition(")")[2].split()  # a name may hold spaces and parentheses
    return (int(after_name[11]) + int(after_name[12])) * _TICK_S


def resident_mb_of(status: str) -> float:
    """VmRSS in /proc/PID/status, in MB of a million bytes."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # a process that is just ending has none


def share_mb_of(smaps_rollup: str) -> float:
    """Pss in /proc/PID/smaps_rollup, in MB of a million bytes: of shared pages its share."""
    for line in smaps_rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _read(pid: int, name: str) -> str:
    return (Path("/proc") / str(pid) / name).read_text(encoding="utf-8")


@contextmanager
def started(
    command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start ``command`` with ``--port`` and a free one of PORTS; end it with SIGTERM.

    It gets none of this process's CHESTXRAY_ settings, but those of ``environment``.

    Raises:
        ServerError: it ends, or ``ready`` does not answer with 200 within ``START_WITHIN_S``; with
            what it said.
    """
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHESTXRAY_")}
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=clean | dict(environment or {}),
            stdout=log,
            stderr=log,
        )
        try:
            while not _answers(address + ready):
                if process.poll() is not None or time.perf_counter() - began > START_WITHIN_S:
                    log.seek(0)
                    told = log.read().decode(errors="replace").strip()
                    raise ServerError(f"{' '.join(command)} does not start: {told}")
                time.sleep(0.005)
            yield Server(address, process.pid, ready_s=time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")
