"""A real Ray cluster of several processes on loopback addresses, and a hand that kills them.

Each node is a ``ray start`` in a session of its own, by which all that it started is found again.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from factories.pacs import free_port
from factories.servers import wait_until

RAY = Path(sys.executable).parent / "ray"
START_WITHIN_S = 120
ACTOR_AT_WORK = b"ray::MapWorker(MapBatches(_Actor)).submit"
"""How Ray calls the process of an actor while it is at a part."""
LISTENS = "0A"
"""A state of sockets in ``/proc/net/tcp``."""


def let_ray_in() -> None:
    """Set what Ray reads once for a process: other users of this machine need a token, too."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@dataclass(slots=True)
class RayCluster:
    """A head without cores, and nodes; every one a process with a session of its own."""

    folder: str
    address: str
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str) -> None:
        """Start the head or a node and return when it is up."""
        ip = f"127.0.0.{2 + len(self.nodes)}"
        log = Path(self.folder, f"{ip}.log")
        with log.open("wb") as output:
            node = subprocess.Popen(
                [
                    *(RAY, "start", "--block", "--disable-usage-stats", *arguments),
                    *(f"--node-ip-address={ip}", "--dashboard-agent-listen-port=0"),
                    *("--min-worker-port=0", "--max-worker-port=0"),
                    f"--object-store-memory={100 * 2**20}",
                ],
                env=os.environ
                | {
                    "RAY_TMPDIR": self.folder,
                    "RAY_raylet_start_wait_time_s": str(START_WITHIN_S),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(node)

        def is_up() -> bool:
            assert node.poll() is None, log.read_text()
            return b"Ray runtime started" in log.read_bytes()

        wait_until(is_up, START_WITHIN_S)

    def actors_at_work(self, node: int | None = None) -> list[int]:
        """The processes that are at a part, of one node or of all."""
        nodes = self.nodes if node is None else [self.nodes[node]]
        return [
            pid for each in nodes for pid in processes_of(each.pid) if _title(pid) == ACTOR_AT_WORK
        ]

    def kill(self, node: int) -> None:
        """SIGKILL to all of a node at once."""
        kill_session(self.nodes[node])


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[RayCluster]:
    """A head without cores, and a node for each number in ``cpus``, with as many."""
    let_ray_in()
    # A socket's path has 107 bytes at most, too few for pytest's folders.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        port = free_port()
        cluster = RayCluster(folder, f"127.0.0.2:{port}")
        try:
            cluster.start(
                *("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"),
                f"--temp-dir={folder}",
            )
            for n in cpus:
                cluster.start(f"--address={cluster.address}", f"--num-cpus={n}")
            yield cluster
        finally:
            for node in reversed(cluster.nodes):
                kill_session(node)


def processes_of(session: int) -> list[int]:
    """All processes of a session, without zombies, which have no title."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            pid = int(entry.name) if entry.name.isdigit() else 0
            if pid and os.getsid(pid) == session and _title(pid):
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


def addresses_listened_at(session: int) -> set[str]:
    """The addresses, as text, at which the processes of a session wait for TCP connections."""
    sockets = {target for pid in processes_of(session) for target in _open_files(pid)}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            address, state, inode = columns[1].split(":")[0], columns[3], columns[9]
            if state == LISTENS and f"socket:[{inode}]" in sockets:
                addresses.add(_address(address))
    return addresses


def _address(in_hex: str) -> str:
    """An address as the kernel writes it: 32-bit words in the machine's order."""
    words = [in_hex[at : at + 8] for at in range(0, len(in_hex), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _open_files(pid: int) -> list[str]:
    """What a process has open, as the kernel calls it; what it closes meanwhile is left out."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(link))  # noqa: PTH115 - a socket is no path
    return found


def kill_session(leader: subprocess.Popen[bytes]) -> None:
    """SIGKILL to every process of a session, until none is left."""

    def is_gone() -> bool:
        alive = processes_of(leader.pid)
        for pid in alive:
            kill(pid)
        return not alive

    wait_until(is_gone)
    leader.wait()


def kill(pid: int) -> None:
    """SIGKILL, unless it is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0 ")
    except (FileNotFoundError, ProcessLookupError):
        return b""
