"""Answers arrive, whatever the archive does meanwhile, and one bad one holds up no other."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from chestxray.pacs.config import NodeConfig
from chestxray.pacs.sender import ASSOCIATIONS, MAX_BACKOFF_S, Sender, backoff_s
from chestxray.pacs.spool import Spool, open_spool
from chestxray.pacs.status import DestinationStatus, read_status
from factories.dicom_files import data_set
from factories.pacs import OVERLAY, REPORT, UID_ROOT, archive, facts, free_port, make_certificates
from factories.servers import wait_until

# pynetdicom drops a socket that could not connect instead of closing it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def part10(sop_class: str, instance: str) -> bytes:
    ds = Dataset() if sop_class == REPORT else data_set()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.PatientName = sop_class, instance, "Phantom"
    buffer = BytesIO()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Sending:
    """A sender at work, and the queue it takes from."""

    def __init__(self, config: NodeConfig, spool: Spool) -> None:
        self.config, self.spool = config, spool

    def add(self, *numbers: int) -> None:
        """Put judged instances into the queue."""
        for number in numbers:
            row = self.spool.add([b"source"], "SENDER")
            assert self.spool.claim("judge")
            self.spool.judged(
                row,
                "judge",
                "archive",
                [
                    [part10(OVERLAY, f"{UID_ROOT}.1.{number}")],
                    [part10(REPORT, f"{UID_ROOT}.2.{number}")],
                ],
            )

    @property
    def status(self) -> DestinationStatus:
        return read_status(self.config).destinations["archive"]


@contextmanager
def sending(
    folder: Path, port: int, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[Sending]:
    said = facts(folder, port)
    change(said["destination"][0])
    config = NodeConfig.model_validate(said)
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        stopping = threading.Event()
        senders = [
            Sender(config.destination[0], "NODE", spool, stopping, lane)
            for lane in range(ASSOCIATIONS)
        ]
        for sender in senders:
            sender.start()
        try:
            yield Sending(config, spool)
        finally:
            stopping.set()
            for sender in senders:
                sender.join(30)


@pytest.fixture(autouse=True)
def _quick_first_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True
    )  # as its process does
    monkeypatch.setattr("chestxray.pacs.sender.FIRST_BACKOFF_S", 0.1)


def test_both_parts_of_every_answer_arrive_over_a_few_associations(tmp_path: Path) -> None:
    with archive(calling="NODE") as kept, sending(tmp_path, kept.port) as at_work:
        at_work.add(1, 2, 3)
        wait_until(lambda: at_work.status.answered == 3)
        assert kept.of(OVERLAY) == {f"{UID_ROOT}.1.{number}" for number in (1, 2, 3)}
        assert kept.of(REPORT) == {f"{UID_ROOT}.2.{number}" for number in (1, 2, 3)}
        assert kept.associations == ASSOCIATIONS
        assert kept.stores == 6


def test_an_idle_association_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chestxray.pacs.sender.IDLE_S", 0.1)
    with archive() as kept, sending(tmp_path, kept.port) as at_work:
        for number in (1, 2):
            at_work.add(number)
            wait_until(lambda: at_work.status.answered == number)  # noqa: B023 - called at once
            wait_until(lambda: kept.releases == number)  # noqa: B023
        assert kept.associations == 2


def test_everything_waits_for_an_archive_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    with sending(tmp_path, port) as at_work:
        at_work.add(1, 2)
        wait_until(lambda: at_work.status.failing == {"unreachable": 2})
        with archive(port) as kept:
            wait_until(lambda: at_work.status.answered == 2)
            assert len(kept.instances) == 4
            assert at_work.status.failing == {}


def test_an_archive_that_goes_away_and_comes_back_gets_everything(tmp_path: Path) -> None:
    port = free_port()
    with sending(tmp_path, port) as at_work:
        with archive(port):
            at_work.add(1)
            wait_until(lambda: at_work.status.answered == 1)
        at_work.add(2, 3)
        wait_until(lambda: at_work.status.failing != {})
        with archive(port) as kept:
            wait_until(lambda: at_work.status.answered == 3)
            assert len(kept.instances) == 4


def test_an_archive_that_does_not_know_us_is_failing(tmp_path: Path) -> None:
    with archive(calling="OTHER") as kept, sending(tmp_path, kept.port) as at_work:
        at_work.add(1)
        wait_until(lambda: at_work.status.failing == {"association_rejected": 1})


def test_an_archive_that_takes_no_reports_is_failing(tmp_path: Path) -> None:
    with archive(sop_classes=[OVERLAY]) as kept, sending(tmp_path, kept.port) as at_work:
        at_work.add(1)
        wait_until(lambda: at_work.status.failing == {"sop_class_refused": 1})
        assert kept.instances == {}


def test_what_the_archive_refuses_is_tried_again_and_others_go_on(tmp_path: Path) -> None:
    refused = {f"{UID_ROOT}.2.1"}

    def status(ds: Dataset) -> int:
        return 0xA700 if str(ds.SOPInstanceUID) in refused else 0x0000

    with archive(status=status) as kept, sending(tmp_path, kept.port) as at_work:
        at_work.add(1, 2, 3)
        wait_until(lambda: at_work.status.answered == 2)
        wait_until(lambda: at_work.status.failing == {"status_0xA700": 1})
        refused.clear()
        wait_until(lambda: at_work.status.answered == 3)
        assert at_work.status.failing == {}


def test_a_warning_of_the_archive_is_a_success(tmp_path: Path) -> None:
    with (
        archive(status=lambda _: 0xB000) as kept,
        sending(tmp_path, kept.port) as at_work,
    ):
        at_work.add(1)
        wait_until(lambda: at_work.status.answered == 1)


def test_an_archive_of_implicit_vr_alone_is_served(tmp_path: Path) -> None:
    with (
        archive(syntaxes=[uid.ImplicitVRLittleEndian]) as kept,
        sending(tmp_path, kept.port) as at_work,
    ):
        at_work.add(1)
        wait_until(lambda: at_work.status.answered == 1)
        assert {str(ds.PatientName) for ds in kept.instances.values()} == {"Phantom"}


def test_an_answer_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    port = free_port()
    with sending(tmp_path, port) as at_work:
        at_work.add(1)
        wait_until(lambda: at_work.status.failing != {})
        for file in (tmp_path / "node" / "files").glob("*.1"):
            file.unlink()
        with archive(port):
            wait_until(lambda: at_work.spool.claim("judge") is not None)


def test_over_tls_the_archive_must_show_its_certificate(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "archive.pem", tmp_path / "archive.key")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    ours = {
        "ca": str(tmp_path / "ca.pem"),
        "certificate": str(tmp_path / "node.pem"),
        "key": str(tmp_path / "node.key"),
    }
    with archive(ssl_context=context) as kept:
        with sending(tmp_path, kept.port, lambda d: d.update(tls=ours)) as at_work:
            at_work.add(1)
            wait_until(lambda: at_work.status.answered == 1)
        with sending(tmp_path, kept.port, lambda d: d.update(tls=ours | {"ca": None})) as at_work:
            at_work.add(2)
            wait_until(lambda: at_work.status.failing == {"unreachable": 1})
        assert len(kept.instances) == 2


def test_waits_double_to_a_limit_and_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chestxray.pacs.sender.FIRST_BACKOFF_S", 1.0)
    for attempts, longest in ((1, 1), (2, 2), (5, 16), (50, MAX_BACKOFF_S)):
        waits = [backoff_s(attempts) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
