"""How many radiographs of full size the node takes in, judges and answers, beside everyone else.

Sender (DCMTK's storescu), node and archive (DCMTK's storescp) share the cores. Several modalities
send studies, an association for each, at the rate that is offered in all or as fast as they may.

Does not: run by itself (``pacs`` runs it).
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pacs_partners import (
    Source,
    Stored,
    configuration,
    cpu_s,
    cpu_s_with_children,
    in_order,
    node_processes,
    store,
    uid_of,
)
from reliability import peak_mb_of

from chestxray.inference import BUNDLED, read_bundle
from chestxray.pacs.identity import derived_uid
from factories.orthanc import running
from factories.pacs import free_port, node, program

SIDE_PX = 2000
MODALITIES, STUDY = 4, 4
"""Who sends at the same time, and how many instances a study has."""

SENDING = {"DCMTK's defaults": (), "PDUs of 16 KiB": ("--max-send-pdu", "16384")}
"""storescu sends PDUs as large as the receiver takes, unless it is told otherwise."""

ANSWERED_WITHIN_S = 180.0
SETTLED_S = 0.5
"""A file that was not written to for so long is complete."""


@dataclass(slots=True)
class _Archive:
    """When each report has arrived; what has arrived is deleted, as there will be gigabytes."""

    folder: Path
    arrived: dict[str, float] = field(default_factory=dict)
    overlays: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.done.wait(0.2):
            self.look()

    def look(self) -> None:
        for entry in list(os.scandir(self.folder)):
            written = entry.stat().st_mtime
            if time.time() - written < SETTLED_S:
                continue
            kind, _, uid = entry.name.partition(".")
            if kind == "SC":
                self.overlays += 1
            else:
                self.arrived[uid] = written
            Path(entry.path).unlink()


def measured(n: int, rate: float | None, sending: str) -> dict[str, Any]:
    """Send ``n`` instances at ``rate`` a second, or as fast as it goes."""
    storescp = program("storescp")
    with tempfile.TemporaryDirectory() as told:
        folder, archive_port = Path(told), free_port()
        archive = _Archive(folder / "archive")
        archive.folder.mkdir()
        receiving = (storescp, "--fork", "-pdu", "131072", "-od", str(archive.folder))
        said = configuration(folder, archive_port, "ARCHIVE")
        sources = [
            [
                Source(folder / f"{m}-{k}.dcm", side_px=SIDE_PX, seed=STUDY * m + k)
                for k in range(STUDY)
            ]
            for m in range(MODALITIES)
        ]
        with (
            running([*receiving, str(archive_port)], folder / "archive.log", lambda: True) as scp,
            node(folder, said) as our_node,
        ):
            port = our_node.port
            _warm_up(port, sources, archive)
            pids = node_processes(our_node.process.pid)
            before = _cpu(pids, scp.pid)
            watching = threading.Thread(target=archive.watch)
            watching.start()
            begun = time.time()
            stored = _send(port, sources, n, rate, SENDING[sending])
            acknowledged = {
                number: at
                for numbers, of in stored
                for number, at in zip(numbers, of.acknowledged, strict=False)
            }
            if not acknowledged:
                raise RuntimeError(f"nothing was received: {stored[0][1].told}")
            _wait(archive, len(acknowledged))
            archive.done.set()
            watching.join()
            cpu = {name: used - before[name] for name, used in _cpu(pids, scp.pid).items()}
            peak_mb = [(work, peak_mb_of(pid)) for pid, work in pids.items()]
            log = our_node.said
            return _facts(
                n, rate, sending, sources, begun, acknowledged, archive, stored, cpu, peak_mb
            ) | {"errors_logged": sum(" ERROR " in line for line in log.splitlines())}


def _warm_up(port: int, sources: list[list[Source]], archive: _Archive) -> None:
    """One study, so that every judge has started and the association with the archive is there."""
    for k, source in enumerate(sources[0]):
        source.become(9_000_000 + k, 9_000_000)
    store(port, [source.file for source in sources[0]])
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while len(archive.arrived) < STUDY:
        assert time.monotonic() < deadline, "the node does not answer"  # noqa: S101
        time.sleep(0.1)
        archive.look()
    archive.arrived.clear()
    archive.overlays = 0


def _cpu(pids: dict[int, str], archive: int) -> dict[str, float]:
    found = {"archive": cpu_s_with_children(archive), "this program": time.process_time()}
    for pid, work in pids.items():
        found[work] = found.get(work, 0.0) + cpu_s(pid)
    return found


def _send(
    port: int, sources: list[list[Source]], n: int, rate: float | None, options: tuple[str, ...]
) -> list[tuple[range, Stored]]:
    begun = time.monotonic()
    n_studies = -(-n // STUDY)

    def modality(m: int) -> list[tuple[range, Stored]]:
        sent = []
        for study in range(m, n_studies, MODALITIES):
            if rate is not None:
                time.sleep(max(0.0, begun + study * STUDY / rate - time.monotonic()))
            numbers = range(study * STUDY, (study + 1) * STUDY)
            for source, number in zip(sources[m], numbers, strict=True):
                source.become(number, study)
            files = [source.file for source in sources[m]]
            sent.append((numbers, store(port, files, *options)))
        return sent

    with ThreadPoolExecutor(MODALITIES) as pool:
        return [one for sent in pool.map(modality, range(MODALITIES)) for one in sent]


def _wait(archive: _Archive, n: int) -> None:
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while len(archive.arrived) < n and time.monotonic() < deadline:
        time.sleep(0.2)


def _facts(
    n: int,
    rate: float | None,
    sending: str,
    sources: list[list[Source]],
    begun: float,
    acknowledged: dict[int, float],
    archive: _Archive,
    stored: list[tuple[range, Stored]],
    cpu: dict[str, float],
    peak_mb: list[tuple[str, float]],
) -> dict[str, Any]:
    bundle_sha256 = read_bundle(BUNDLED).sha256
    answered = {
        number: archive.arrived[report]
        for number in acknowledged
        if (report := derived_uid("report", uid_of("instance", number), bundle_sha256))
        in archive.arrived
    }
    if not answered:
        raise RuntimeError("nothing was answered")
    latency_s = [at - acknowledged[number] for number, at in answered.items()]
    last = max(acknowledged.values())
    cpu["storescu"] = sum(of.cpu_s for _, of in stored)
    return {
        "n": n,
        "offered_per_s": rate,
        "sending": sending,
        "bytes_each": sources[0][0].size_bytes,
        "acknowledged": len(acknowledged),
        "answered": len(answered),
        "overlays": archive.overlays,
        "received_per_s": round(len(acknowledged) / (last - begun), 2),
        "answered_per_s": round(len(answered) / (max(answered.values()) - begun), 2),
        "backlog_at_end": sum(at > last for at in answered.values())
        + len(acknowledged)
        - len(answered),
        "latency_s": {
            "median": round(median(latency_s), 2),
            "p95": round(in_order(latency_s, 0.95), 2),
            "worst": round(max(latency_s), 2),
        },
        "cpu_ms_each": {
            name: round(1000 * used / len(acknowledged), 1) for name, used in sorted(cpu.items())
        },
        "peak_mb": [[work, round(of)] for work, of in peak_mb],
        "storescu_said": sorted({of.told.strip() for _, of in stored if of.told.strip()})[:5],
    }
