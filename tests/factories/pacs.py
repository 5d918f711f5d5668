"""The node's partners in loopback: who sends to it, the archive it answers to; and itself."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association

from chestxray.assessment import Assessment, Assessor, Choices, Policy
from chestxray.errors import ChestXrayError
from chestxray.imaging import Radiograph
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Bundle, Prediction, Predictor
from chestxray.pacs.config import NodeConfig
from factories.bundles import tiny_manifest, tiny_model
from factories.dicom_files import CR, data_set, phantom
from factories.servers import wait_until

OVERLAY = uid.SecondaryCaptureImageStorage
REPORT = uid.Comprehensive3DSRStorage
UID_ROOT = "1.2.826.0.1.3680043.8.498"


def chest(number: int = 1, *, side_px: int = 64, **attributes: Any) -> Dataset:
    """A small radiograph in a study of its own, ready to be sent."""
    own = {
        "SOPInstanceUID": f"{UID_ROOT}.{number}.1",
        "StudyInstanceUID": f"{UID_ROOT}.{number}.2",
        "SeriesInstanceUID": f"{UID_ROOT}.{number}.3",
    }
    ds = data_set(phantom(side_px=side_px, seed=number), **(own | attributes))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return ds


def tiny_predictor(sha256: str, *, seed: int = 0, **changes: Any) -> Predictor:
    """A tiny bundle at work whose identity is known beforehand."""
    model = tiny_model(seed=seed)
    return Predictor.of(Bundle(tiny_manifest(model, **changes), model, sha256))


SEEN = synthetic_radiograph(1, 600)


def assessed(
    predictor: Predictor,
    prediction: Prediction | None = None,
    *,
    pixels: Any = SEEN,
    warnings: tuple[str, ...] = (),
    error: ChestXrayError | None = None,
) -> Assessment:
    """What a bundle is said to have decided of ``pixels`` (H, W)."""
    assessor = Assessor("tiny", predictor, Policy.of(predictor.manifest, Choices()))
    height_px, width_px = pixels.shape
    radiograph = Radiograph(pixels.astype("float32"), "DICOM", width_px, height_px)
    return Assessment(assessor, None, radiograph, prediction, warnings, error)


def comments(report: Dataset) -> list[str]:
    """What a report comments on in its measurement groups, and then behind them."""
    return [
        item.TextValue
        for item in _items(report)
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    ]


def _items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence", []):
        yield item
        yield from _items(item)


@contextmanager
def association(
    port: int,
    *,
    calling: str = "SENDER",
    called: str = "NODE",
    sop_classes: Iterable[str] = (CR, "1.2.840.10008.1.1"),
    tls_args: Any = None,
) -> Iterator[Association]:
    """An association with the node, accepted or not."""
    ae = AE(calling)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    link = ae.associate(
        "127.0.0.1",
        port,
        contexts=[
            build_context(sop_class, uid.ExplicitVRLittleEndian) for sop_class in sop_classes
        ],
        ae_title=called,
        tls_args=tls_args,
    )
    try:
        yield link
    finally:
        if link.is_established:
            link.release()
        link.dul.join(20)
        connection = link.dul.socket
        if connection is not None and connection.socket is not None:
            connection.socket.close()  # pynetdicom does not when the node was first to close it


def send(port: int, *sources: Dataset, **options: Any) -> list[int | None]:
    """The statuses of C-STOREs; None where there was no answer."""
    with association(port, **options) as link:
        if not link.is_established:
            return [None for _ in sources]
        return [link.send_c_store(ds).get("Status") for ds in sources]


class Archive:
    """An SCP that remembers which instances it has, by SOP Instance UID."""

    def __init__(self, status: Callable[[Dataset], int]) -> None:
        self.status = status
        self.port = 0
        self.associations = self.releases = 0
        self.stores = 0
        self.instances: dict[str, Dataset] = {}

    def of(self, sop_class: str) -> set[str]:
        return {u for u, ds in self.instances.items() if ds.SOPClassUID == sop_class}

    def on_open(self, _: evt.Event) -> None:
        self.associations += 1

    def on_release(self, _: evt.Event) -> None:
        self.releases += 1

    def on_store(self, event: evt.Event) -> int:
        ds = event.dataset
        self.stores += 1
        status = self.status(ds)
        if status < 0xA000 or status >> 12 == 0xB:
            self.instances[str(ds.SOPInstanceUID)] = ds
        return status


@contextmanager
def archive(
    port: int = 0,
    *,
    status: Callable[[Dataset], int] = lambda _: 0,
    syntaxes: Iterable[str] = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian),
    sop_classes: Iterable[str] = (OVERLAY, REPORT),
    calling: str | None = None,
    ssl_context: Any = None,
) -> Iterator[Archive]:
    kept = Archive(status)
    ae = AE("ARCHIVE")
    ae.require_called_aet = True
    if calling is not None:
        ae.require_calling_aet = [calling]
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, list(syntaxes))
    server = ae.start_server(
        ("127.0.0.1", port),
        block=False,
        ssl_context=ssl_context,
        evt_handlers=[
            (evt.EVT_ESTABLISHED, kept.on_open),
            (evt.EVT_RELEASED, kept.on_release),
            (evt.EVT_C_STORE, kept.on_store),
        ],
    )
    assert server is not None
    kept.port = server.socket.getsockname()[1]
    try:
        yield kept
    finally:
        open_ones = list(server.active_associations)
        server.shutdown()
        for link in open_ones:
            link.abort()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def facts(folder: Path, destination_port: int = 1, **node: Any) -> dict[str, Any]:
    """What a configuration says; ``node`` adds to its section."""
    return {
        "node": {"ae_title": "NODE", "folder": str(folder / "node"), "port": 0, "judges": 1} | node,
        "peer": [{"ae_title": "SENDER"}],
        "destination": [
            {
                "name": "archive",
                "ae_title": "ARCHIVE",
                "host": "127.0.0.1",
                "port": destination_port,
            }
        ],
        "route": [{"destination": "archive", "input_check": "warn"}],
    }


def config_of(folder: Path, destination_port: int = 1, **node: Any) -> NodeConfig:
    return NodeConfig.model_validate(facts(folder, destination_port, **node))


def write_config(folder: Path, said: dict[str, Any]) -> Path:
    """``said`` as TOML."""

    def value(of: Any) -> str:
        if isinstance(of, dict):
            return f"{{{', '.join(f'{key} = {value(its)}' for key, its in of.items())}}}"
        if isinstance(of, bool):
            return str(of).lower()
        return f"[{', '.join(map(value, of))}]" if isinstance(of, list | tuple) else repr(of)

    lines = []
    for name, sections in said.items():
        several = isinstance(sections, list)
        for section in sections if several else [sections]:
            lines.append(f"[[{name}]]" if several else f"[{name}]")
            lines += [f"{key} = {value(of)}" for key, of in section.items()]
    file = folder / "pacs.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


class NodeProcess:
    """`chestxray pacs run` as a process of its own; ``first`` is what its Python runs before."""

    def __init__(self, config: Path, log: Path, first: str = "") -> None:
        self.log = log
        self._begins = log.stat().st_size if log.exists() else 0
        run = ("pacs", "run", str(config))
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{first}\nfrom chestxray.cli import main; main()", *run],
                stderr=stderr,
            )

    @property
    def said(self) -> str:
        return self.log.read_bytes()[self._begins :].decode()

    @property
    def port(self) -> int:
        """Where it listens, as soon as it does."""
        wait_until(lambda: " listens on " in self.said or self.process.poll() is not None)
        found = re.search(r" listens on \S+ port (\d+)", self.said)
        assert found, self.said
        return int(found[1])

    @property
    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def node(folder: Path, said: dict[str, Any], first: str = "") -> Iterator[NodeProcess]:
    running = NodeProcess(write_config(folder, said), folder / "log", first)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def program(name: str) -> str:
    """A program of DCMTK or OpenSSL, or else the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def make_certificates(folder: Path) -> None:
    """ca.pem, and node.pem, archive.pem, peer.pem with their keys, signed by it for 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(
            [program("openssl"), *arguments], check=True, capture_output=True, cwd=folder
        )

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *new_key, "-subj", "/CN=ca", "-out", "ca.pem", "-keyout", "ca.key")
    for name in ("node", "archive", "peer"):
        openssl(
            *(
                "req",
                "-x509",
                *new_key,
                "-subj",
                f"/CN={name}",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-out", f"{name}.pem", "-keyout", f"{name}.key"),
        )


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(120)
