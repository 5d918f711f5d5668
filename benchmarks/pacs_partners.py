"""What the programs about the DICOM node share: sources, storescu, and who takes CPU and memory.

Importing this makes the factories of the tests importable.

Does not: start a node or an archive (``factories`` does).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import REPOSITORY, versions
from processes import cpu_s_of

sys.path.append(str(REPOSITORY / "tests"))

from factories.dicom_files import dicom, phantom
from factories.pacs import facts

CALLING, CALLED = "SENDER", "NODE"
STORED_WITHIN_S = 300.0

_ROOT = "1.2.826.0.1.3680043.8.498.7"
_FIRST = 10_000_000
"""All UIDs are as long as this one's, so that they can be written over one another."""

_ACKNOWLEDGED = "Received Store Response (Success)"


def uid_of(kind: str, number: int) -> str:
    """The UID of a source, its series or its study: instance, series, study."""
    return f"{_ROOT}.{('instance', 'series', 'study').index(kind)}.{_FIRST + number}"


class Source:
    """A radiograph's file, made once, that becomes one instance after the other."""

    def __init__(self, file: Path, *, side_px: int, seed: int) -> None:
        uids = {
            keyword: uid_of(kind, 0)
            for keyword, kind in (
                ("SOPInstanceUID", "instance"),
                ("SeriesInstanceUID", "series"),
                ("StudyInstanceUID", "study"),
            )
        }
        content = dicom(phantom(12, side_px, seed), **uids)
        self.file, self.size_bytes = file, len(content)
        self._places = {
            kind: [
                found.start() for found in re.finditer(re.escape(uid_of(kind, 0).encode()), head)
            ]
            for head in [content[:8192]]
            for kind in ("instance", "series", "study")
        }
        file.write_bytes(content)

    def become(self, number: int, study: int) -> None:
        """Instance ``number`` of ``study``, which has one series."""
        with self.file.open("r+b") as stream:
            for kind, places in self._places.items():
                for place in places:
                    stream.seek(place)
                    stream.write(uid_of(kind, number if kind == "instance" else study).encode())


@dataclass(slots=True)
class Stored:
    """What became of files that were sent: when each was acknowledged, as far as they were."""

    acknowledged: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    told: str = ""


def store(port: int, files: Sequence[Path], *options: str) -> Stored:
    """Send ``files`` by storescu in one association, which ends at the first that fails."""
    to = ("-aet", CALLING, "-aec", CALLED, "127.0.0.1", str(port))
    limits = ("-to", "10", "-td", "60")  # seconds; it would wait for ever
    process = subprocess.Popen(
        ["storescu", "-v", "-R", *limits, *options, *to, *map(str, files)],  # noqa: S607
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    stored = Stored()
    assert process.stdout  # noqa: S101 - it is a pipe
    for line in process.stdout:
        if _ACKNOWLEDGED in line:
            stored.acknowledged.append(time.time())
        elif line.startswith(("W:", "E:", "F:")):
            stored.told += line
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    stored.cpu_s = used.ru_utime + used.ru_stime
    return stored


def configuration(folder: Path, archive_port: int, ae_title: str, **node: Any) -> dict[str, Any]:
    """What the node is told: nothing but ports and names, and phantoms are answered, with an
    overlay, whichever bundle ships."""
    said = facts(folder, archive_port, **node)
    said["node"].pop("judges")
    said["destination"][0]["ae_title"] = ae_title
    said["route"][0]["unvalidated_heatmaps"] = True
    return said


def children_of(pid: int) -> list[int]:
    """In the order in which they were started."""
    return sorted(int(child) for child in _read(pid, f"task/{pid}/children").split())


def node_processes(pid: int) -> dict[int, str]:
    """What each process of a node does, none of which was replaced: the sender starts last."""
    work = [child for child in children_of(pid) if "spawn_main" in _read(child, "cmdline")]
    *judges, sender = work
    return {pid: "receiver"} | dict.fromkeys(judges, "judge") | {sender: "sender"}


def cpu_s_with_children(pid: int) -> float:
    """CPU time of a process, of the children that it has, and of those that it had."""
    found = [pid, *children_of(pid)]
    living = sum(cpu_s_of(_read(of, "stat")) for of in found if _read(of, "stat"))
    fields = _read(pid, "stat").rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return living + ended


def cpu_s(pid: int) -> float:
    return cpu_s_of(_read(pid, "stat"))


def _read(pid: int, name: str) -> str:
    try:
        return (Path("/proc") / str(pid) / name).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def partners() -> dict[str, str]:
    """Versions of what judges and serves, and of those whom the node was tried with."""
    found = versions() | {name: version(name) for name in ("pydicom", "pynetdicom", "highdicom")}
    for name, command in (("dcmtk", "storescu"), ("Orthanc", "Orthanc")):
        told = subprocess.run(
            [command, "--version"], capture_output=True, text=True, check=False
        ).stdout
        number = re.search(r"\d+\.\d+\.\d+", told)
        found[name] = number[0] if number else "unknown"
    return found


def in_order(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def chunks(n: int, size: int) -> Iterator[range]:
    for first in range(0, n, size):
        yield range(first, min(n, first + size))
