"""Debian's Orthanc as an archive: a process of its own on free loopback ports, and what it holds.

Does not: need plugins, or outlive the ``with`` it was started in.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from factories.pacs import OVERLAY, free_port, program

AE_TITLE = "ORTHANC"
PROGRAM = "/usr/sbin/Orthanc"
START_WITHIN_S = 30
STOP_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A running archive and its REST API."""

    http: httpx.Client
    dicom_port: int
    log: Path

    def instances(self) -> list[dict[str, Any]]:
        """All instances: their attributes by keyword, pixels and the like left out, and ``id``."""
        return [
            self._get(f"instances/{identity}/simplified-tags") | {"id": identity}
            for identity in self._get("instances")
        ]

    def count(self) -> int:
        """How many instances there are."""
        n: int = self._get("statistics")["CountInstances"]
        return n

    def file(self, identity: str) -> bytes:
        """An instance as a DICOM file."""
        return self.http.get(f"instances/{identity}/file").raise_for_status().content

    def _get(self, path: str) -> Any:
        return self.http.get(path).raise_for_status().json()


def source_of(answer: dict[str, Any]) -> str:
    """The SOP Instance UID of the radiograph that an instance of ours is an answer to."""
    if answer["SOPClassUID"] == OVERLAY:
        (image,) = answer["SourceImageSequence"]
    else:
        (study,) = answer["CurrentRequestedProcedureEvidenceSequence"]
        (series,) = study["ReferencedSeriesSequence"]
        (image,) = series["ReferencedSOPSequence"]
    return str(image["ReferencedSOPInstanceUID"])


@contextmanager
def orthanc(
    folder: Path,
    *,
    senders: Sequence[str] = ("CHESTXRAY",),
    dicom_port: int | None = None,
    auth: tuple[str, str] | None = None,
    **configuration: Any,
) -> Iterator[Orthanc]:
    """Orthanc with its data in ``folder``, as soon as it answers; the test is skipped without it.

    AE titles in ``senders`` may store, nobody else may. ``configuration`` goes into its own.
    Started again with the same folder, it has what it had.
    """
    folder.mkdir(exist_ok=True)
    http_port, dicom_port = free_port(), dicom_port or free_port()
    told = {
        "Name": "archive of a test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,  # from this machine alone, so without a password
        "AuthenticationEnabled": False,
        "DicomAet": AE_TITLE,
        "DicomPort": dicom_port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomModalities": {title: [title, "127.0.0.1", 104] for title in senders},
        "SaveJobs": False,
        **configuration,
    }
    file, log = folder / "orthanc.json", folder / "orthanc.log"
    file.write_text(json.dumps(told), encoding="utf-8")
    with ExitStack() as stack:
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=30, auth=auth)
        )
        stack.enter_context(running([program(PROGRAM), str(file)], log, lambda: answers(http)))
        yield Orthanc(http, dicom_port, log)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("system").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def running(
    command: Sequence[str], log: Path, ready: Callable[[], object]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program from when it is ``ready`` until it ends, at the latest by SIGTERM and SIGKILL.

    What it says is appended to ``log``.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while not ready():
            told = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            assert process.poll() is None, f"{command[0]} has ended: {told}"
            assert time.monotonic() < deadline, f"{command[0]} does not start: {told}"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
