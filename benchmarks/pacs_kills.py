"""The node is killed again and again, and the archive is asked what it has in the end.

storescu sends studies, and again what was not acknowledged; Orthanc is the archive. The node's main
process gets SIGKILL whenever the archive has so many answers, and a moment later, both drawn from a
seed, and is started again at once. There is always something to receive, to judge and to send.

Does not: run by itself (``pacs`` runs it), or ask the node what it has done.
"""

# ruff: noqa: S311 - when it is killed is drawn from a seed

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from pacs_partners import CALLED, Source, chunks, configuration, store, uid_of

from factories.orthanc import AE_TITLE, Orthanc, orthanc, source_of
from factories.pacs import OVERLAY, REPORT, NodeProcess, free_port, write_config

SIDE_PX, STUDY = 256, 10
AHEAD = 120
"""Acknowledged instances that wait at most for their answer before more are sent."""

DELAY_S = 4.0
"""A kill comes at most so long after it was due: a node needs some 3 s to start, and is killed in
that time, too."""

LAST_KILL = 0.9
"""No kill is due when more of the answers are there: it would come when all is done."""

WITHIN_S = 900.0

COUNT_RECEIVED = """
function ReceivedInstanceFilter(dicom, origin, info)
  print('received ' .. dicom.SOPInstanceUID)
  return true
end
"""
"""Orthanc asks this of every instance that comes, also of one that it has."""


def measured(n: int, n_kills: int, seed: int) -> dict[str, Any]:
    """``n`` instances through a node that is killed ``n_kills`` times."""
    with tempfile.TemporaryDirectory() as told:
        folder = Path(told)
        lua = folder / "count.lua"
        lua.write_text(COUNT_RECEIVED, encoding="utf-8")
        with orthanc(folder / "orthanc", senders=[CALLED], LuaScripts=[str(lua)]) as archive:
            return _run(folder, archive, n, n_kills, Random(seed)) | {"seed": seed}


def _run(folder: Path, archive: Orthanc, n: int, n_kills: int, random: Random) -> dict[str, Any]:
    port = free_port()
    config = write_config(folder, configuration(folder, archive.dicom_port, AE_TITLE, port=port))
    begun = time.monotonic()
    sender = _Sender(folder, port, n, archive.count)
    our_node = NodeProcess(config, folder / "log")
    sending = threading.Thread(target=sender.run)
    kills_at = []
    try:
        sending.start()
        for due in sorted(random.sample(range(int(LAST_KILL * 2 * n)), n_kills)):
            _wait(lambda due=due: archive.count() >= due, "the archive gets no more answers")
            time.sleep(random.uniform(0, DELAY_S))
            kills_at.append(archive.count())
            our_node.kill()
            our_node = NodeProcess(config, folder / "log")
        sending.join(WITHIN_S)
        _wait(lambda: archive.count() >= 2 * n, "the archive lacks answers")
        took_s = time.monotonic() - begun
        our_node.end()  # it would send now what it had still to send
    finally:
        sender.stopping.set()
        if our_node.process.poll() is None:
            our_node.kill()
        sending.join()
    return _facts(archive, n, sender, kills_at) | {"took_s": round(took_s, 1)}


class _Sender:
    """Sends instance after instance until each was acknowledged."""

    def __init__(self, folder: Path, port: int, n: int, answers: Callable[[], int]) -> None:
        self._sources = [
            Source(folder / f"source-{k}.dcm", side_px=SIDE_PX, seed=k) for k in range(STUDY)
        ]
        self._port, self._n, self._answers = port, n, answers
        self.acknowledged = 0
        self.broken = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        for study, numbers in enumerate(chunks(self._n, STUDY)):
            sources = self._sources[: len(numbers)]
            for source, number in zip(sources, numbers, strict=True):
                source.become(number, study)
            while self.acknowledged - self._answers() / 2 > AHEAD:
                if self.stopping.wait(0.05):
                    return
            left = [source.file for source in sources]
            while left:
                if self.stopping.is_set():
                    return
                got = len(store(self._port, left).acknowledged)
                self.acknowledged += got
                left = left[got:]
                if left:
                    self.broken += 1
                    self.stopping.wait(0.1)


def _wait(condition: Callable[[], bool], else_: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(else_)
        time.sleep(0.05)


def _facts(archive: Orthanc, n: int, sender: _Sender, kills_at: list[int]) -> dict[str, Any]:
    wanted = {uid_of("instance", number): uid_of("study", number // STUDY) for number in range(n)}
    found = archive.instances()
    of_kind = {
        kind: Counter(source_of(of) for of in found if of["SOPClassUID"] == sop_class)
        for kind, sop_class in (("report", REPORT), ("overlay", OVERLAY))
    }
    log = archive.log.read_text(encoding="utf-8", errors="replace")
    received = log.count("Lua says: received ")
    return {
        "n": n,
        "kills": len(kills_at),
        "kills_at_work": sum(answers < 2 * n for answers in kills_at),
        "answers_at_kills": kills_at,
        "acknowledged": sender.acknowledged,
        "sendings_broken": sender.broken,
        "missing": {kind: sum(of[uid] == 0 for uid in wanted) for kind, of in of_kind.items()},
        "double": {kind: sum(of[uid] > 1 for uid in wanted) for kind, of in of_kind.items()},
        "exactly_one": {kind: sum(of[uid] == 1 for uid in wanted) for kind, of in of_kind.items()},
        "of_no_source": len(found) - sum(of[uid] for of in of_kind.values() for uid in wanted),
        "in_the_wrong_study": sum(
            of["StudyInstanceUID"] != wanted.get(source_of(of)) for of in found
        ),
        "received_again": received - len(found),
    }
