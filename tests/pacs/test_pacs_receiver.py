"""What peers send is durable when it is acknowledged; nobody else gets in, and nobody too much."""

import io
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from chestxray.errors import ConfigError, NodeError
from chestxray.imaging import Limits
from chestxray.pacs import receiver as receiver_module
from chestxray.pacs.config import NodeConfig
from chestxray.pacs.receiver import (
    HEADERS_BYTES,
    MAX_OTHER_PDU_BYTES,
    TRANSFER_SYNTAXES,
    Receiver,
)
from chestxray.pacs.spool import FILES_FOLDER, Spool, open_spool
from factories.dicom_files import CR
from factories.pacs import association, chest, facts, make_certificates, program, send
from factories.servers import wait_until

VERIFICATION = "1.2.840.10008.1.1"


class Listening:
    def __init__(self, receiver: Receiver, spool: Spool, folder: Path) -> None:
        self.port, self.spool, self.folder = receiver.port, spool, folder

    def received(self) -> list[bytes]:
        files = (self.folder / FILES_FOLDER).iterdir()
        return [file.read_bytes() for file in files]


@contextmanager
def receiving(
    folder: Path, limits: Limits | None = None, changes: Any = None, **node: Any
) -> Iterator[Listening]:
    config = NodeConfig.model_validate(facts(folder, **node) | (changes or {}))
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        receiver = Receiver(config, spool, limits)
        receiver.start()
        try:
            yield Listening(receiver, spool, config.node.folder)
        finally:
            receiver.close(timeout_s=5)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    with receiving(tmp_path) as listening:
        yield listening


def test_an_instance_is_kept_as_it_came(listening: Listening) -> None:
    ds = chest(1)
    assert send(listening.port, ds) == [0x0000]
    (data,) = listening.received()
    kept = dcmread(io.BytesIO(data))
    assert kept.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert kept.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert kept == ds
    waiting = listening.spool.claim("judge")
    assert waiting is not None
    assert waiting.calling_ae == "SENDER"


def test_an_instance_sent_twice_is_two_arrivals(listening: Listening) -> None:
    assert send(listening.port, chest(1), chest(1)) == [0x0000, 0x0000]
    assert len(listening.received()) == 2


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: UID_NAMES[syntax])
def test_every_transfer_syntax_that_is_read_is_accepted(listening: Listening, syntax: str) -> None:
    link = AE("SENDER").associate(
        "127.0.0.1", listening.port, [build_context(CR, syntax)], ae_title="NODE"
    )
    assert [context.transfer_syntax for context in link.accepted_contexts] == [[syntax]]
    link.release()


UID_NAMES = {syntax: uid.UID(syntax).name for syntax in TRANSFER_SYNTAXES}


def test_other_sop_classes_are_not_accepted(listening: Listening) -> None:
    with association(listening.port, sop_classes=[CR, uid.CTImageStorage]) as link:
        assert [context.abstract_syntax for context in link.rejected_contexts] == [
            uid.CTImageStorage
        ]


@pytest.mark.parametrize(
    ("titles", "diagnostic"),
    [({"calling": "STRANGER"}, 3), ({"called": "OTHER"}, 7)],
)
def test_strangers_are_rejected_with_the_reason(
    listening: Listening, titles: dict[str, str], diagnostic: int
) -> None:
    with association(listening.port, **titles) as link:
        assert link.is_rejected
        assert link.acceptor.primitive.diagnostic == diagnostic


def test_a_peer_from_another_address_is_rejected(tmp_path: Path) -> None:
    peers = {"peer": [{"ae_title": "SENDER", "hosts": ["10.0.0.0/8"]}]}
    with receiving(tmp_path, changes=peers) as listening, association(listening.port) as link:
        assert link.is_rejected


def test_without_peers_nobody_may_send(tmp_path: Path) -> None:
    with receiving(tmp_path, changes={"peer": []}) as listening:
        with association(listening.port) as link:
            assert link.is_rejected
        assert send(listening.port, chest(1)) == [None]


def test_one_association_too_many_is_rejected(tmp_path: Path) -> None:
    with receiving(tmp_path, associations=1) as listening, association(listening.port) as first:
        assert first.is_established
        with association(listening.port) as second:
            assert second.is_rejected
            assert second.acceptor.primitive.result_source == 3


def test_connections_that_ask_for_nothing_shut_nobody_out(tmp_path: Path) -> None:
    with receiving(tmp_path, associations=1) as listening, ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
        assert send(listening.port, chest(1)) == [0x0000]


def test_of_too_many_connections_that_ask_for_nothing_the_oldest_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "MAX_ASKING", 3)
    with receiving(tmp_path) as listening, ExitStack() as silent:
        oldest, *_ = [
            silent.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
            for _ in range(4)
        ]
        oldest.settimeout(20)
        with suppress(ConnectionResetError):
            assert oldest.recv(1) == b""
        assert send(listening.port, chest(1)) == [0x0000]


def test_who_never_asks_for_an_association_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "NEGOTIATION_S", 0.1)
    with (
        receiving(tmp_path) as listening,
        socket.create_connection(("127.0.0.1", listening.port), timeout=20) as silent,
    ):
        assert silent.recv(1) == b""


def test_one_peer_leaves_places_to_the_others(tmp_path: Path) -> None:
    peers = {"peer": [{"ae_title": "SENDER"}, {"ae_title": "OTHER"}]}
    with receiving(tmp_path, changes=peers, associations=4) as listening, ExitStack() as held:

        def asked(calling: str) -> Any:
            return held.enter_context(association(listening.port, calling=calling))

        assert all(asked("SENDER").is_established for _ in range(3))
        assert asked("SENDER").is_rejected
        assert asked("OTHER").is_established
        assert asked("OTHER").is_rejected


def test_an_association_that_ends_gives_its_place_back(tmp_path: Path) -> None:
    with receiving(tmp_path, associations=1) as listening:
        for number in range(5):
            wait_until(lambda number=number: send(listening.port, chest(number)) == [0x0000])


def test_an_instance_beyond_the_bound_ends_the_association(tmp_path: Path) -> None:
    with receiving(tmp_path, Limits(max_bytes=10_000)) as listening:
        large = chest(1, side_px=800)
        assert len(large.PixelData) > HEADERS_BYTES + 10_000
        assert send(listening.port, large) == [None]
        assert listening.received() == []
        assert send(listening.port, chest(2)) == [0x0000]


def test_a_lie_about_a_length_ends_the_connection(listening: Listening) -> None:
    with socket.create_connection(("127.0.0.1", listening.port), timeout=20) as connection:
        connection.sendall(b"\x01\x00" + (MAX_OTHER_PDU_BYTES + 1).to_bytes(4) + b"x")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_a_full_disk_is_answered_as_out_of_resources(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(listening.folder / FILES_FOLDER)
    assert send(listening.port, chest(1)) == [0xA700]
    assert "not taken in" in caplog.text


def test_nothing_of_a_patient_is_logged(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="chestxray")
    ds = chest(1)
    assert send(listening.port, ds) == [0x0000]
    assert "instance 1 received from SENDER" in caplog.text
    ours = "".join(r.getMessage() for r in caplog.records if r.name.startswith("chestxray"))
    for value in identifiers(ds):
        assert value not in ours


def identifiers(ds: Dataset) -> list[str]:
    keywords = ("SOPInstanceUID", "StudyInstanceUID", "PatientName", "PatientID", "StudyDate")
    return [str(ds[keyword].value) for keyword in keywords]


def test_a_taken_port_is_said_to_be_so(listening: Listening, tmp_path: Path) -> None:
    with (
        pytest.raises(NodeError, match="cannot listen"),
        receiving(tmp_path / "second", port=listening.port),
    ):
        pass


def test_who_sends_when_the_node_ends_may_finish(tmp_path: Path) -> None:
    config = NodeConfig.model_validate(facts(tmp_path))
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        receiver = Receiver(config, spool)
        receiver.start()
        with association(receiver.port) as link:
            ending = threading.Thread(target=receiver.close, args=(20,))
            ending.start()
            wait_until(lambda: not _accepts(receiver.port))
            assert link.send_c_store(chest(1)).Status == 0x0000
        ending.join(30)
        assert not ending.is_alive()


def test_who_holds_its_association_too_long_is_aborted(tmp_path: Path) -> None:
    config = NodeConfig.model_validate(facts(tmp_path))
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        receiver = Receiver(config, spool)
        receiver.start()
        with association(receiver.port) as link:
            receiver.close(0.1)
            wait_until(lambda: bool(link.is_aborted))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def test_dcmtk_gets_an_echo_and_stores(listening: Listening, tmp_path: Path) -> None:
    titles = ["-aet", "SENDER", "-aec", "NODE", "127.0.0.1", str(listening.port)]
    subprocess.run([program("echoscu"), *titles], check=True, timeout=30)
    file = tmp_path / "chest.dcm"
    chest(1).save_as(file, enforce_file_format=True)
    subprocess.run([program("storescu"), *titles, str(file)], check=True, timeout=30)
    assert len(listening.received()) == 1


def test_dcmtk_is_told_why_it_is_rejected(listening: Listening) -> None:
    called = ["-aec", "NODE", "127.0.0.1", str(listening.port)]
    told = subprocess.run(
        [program("echoscu"), *called], check=False, capture_output=True, text=True, timeout=30
    )
    assert told.returncode
    assert "Calling AE Title Not Recognized" in told.stdout + told.stderr


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    make_certificates(tmp_path)
    return tmp_path


def tls_of(folder: Path, *, with_ca: bool = True) -> dict[str, str]:
    said = {"certificate": str(folder / "node.pem"), "key": str(folder / "node.key")}
    return said | ({"ca": str(folder / "ca.pem")} if with_ca else {})


def client_tls(folder: Path, name: str | None) -> tuple[ssl.SSLContext, str]:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if name is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context, "127.0.0.1"


def test_over_tls_a_peer_with_a_certificate_sends(certificates: Path) -> None:
    with receiving(certificates, tls=tls_of(certificates)) as listening:
        statuses = send(listening.port, chest(1), tls_args=client_tls(certificates, "peer"))
        assert statuses == [0x0000]


def test_over_tls_a_peer_without_a_certificate_gets_nowhere(certificates: Path) -> None:
    with receiving(certificates, tls=tls_of(certificates)) as listening:
        for tls_args in (client_tls(certificates, None), None):
            assert send(listening.port, chest(1), tls_args=tls_args) == [None]
        assert listening.received() == []


def test_over_tls_no_certificate_is_asked_for_without_a_ca(certificates: Path) -> None:
    with receiving(certificates, tls=tls_of(certificates, with_ca=False)) as listening:
        statuses = send(listening.port, chest(1), tls_args=client_tls(certificates, None))
        assert statuses == [0x0000]


def test_a_silent_handshake_holds_up_nobody(certificates: Path) -> None:
    with (
        receiving(certificates, tls=tls_of(certificates)) as listening,
        socket.create_connection(("127.0.0.1", listening.port)),
    ):
        statuses = send(listening.port, chest(1), tls_args=client_tls(certificates, "peer"))
        assert statuses == [0x0000]


def test_dcmtk_gets_an_echo_over_tls(certificates: Path) -> None:
    echoscu = program("echoscu")
    with receiving(certificates, tls=tls_of(certificates)) as listening:
        subprocess.run(
            [
                *(echoscu, "-aet", "SENDER", "-aec", "NODE"),
                *("+tls", str(certificates / "peer.key"), str(certificates / "peer.pem")),
                *("+cf", str(certificates / "ca.pem"), "127.0.0.1", str(listening.port)),
            ],
            check=True,
            timeout=30,
        )


def test_a_certificate_that_is_none_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "node.pem").write_text("nothing")
    (tmp_path / "node.key").write_text("nothing")
    with (
        pytest.raises(ConfigError, match=r"node\.pem"),
        receiving(tmp_path, tls=tls_of(tmp_path, with_ca=False)),
    ):
        pass
