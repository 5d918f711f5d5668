"""The node among real partners: DCMTK sends, Orthanc stores, DCMTK and dicom3tools read."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid

from chestxray.inference import BUNDLED, read_bundle
from factories.dicom_files import CR, DX, compressed, data_set, dicom, part10, phantom
from factories.orthanc import AE_TITLE, Orthanc, orthanc, source_of
from factories.pacs import OVERLAY, REPORT, UID_ROOT, NodeProcess, facts, free_port, node, program
from factories.servers import wait_until

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "pacs.md").read_text(encoding="utf-8")

STUDY = f"{UID_ROOT}.6.1"
BITS, SIDE_PX = 12, 200

LATERAL = {"ViewPosition": "LL", "PatientOrientation": ["A", "F"]}

PROPOSED = {
    uid.ExplicitVRLittleEndian: "--propose-little",
    uid.ImplicitVRLittleEndian: "--propose-implicit",
    uid.DeflatedExplicitVRLittleEndian: "--propose-deflated",
    uid.RLELossless: "--propose-rle",
    uid.JPEGBaseline8Bit: "--propose-jpeg8",
    uid.JPEGExtended12Bit: "--propose-jpeg12",
    uid.JPEGLosslessSV1: "--propose-lossless",
    uid.JPEGLSLossless: "--propose-jls-lossless",
    uid.JPEG2000Lossless: "--propose-j2k-lossless",
}
"""storescu's option for each transfer syntax that it speaks and a radiograph may come in."""


def source(number: int, transfer_syntax: str, **attributes: Any) -> bytes:
    """One radiograph of the study, as a file."""
    own = {
        "SOPClassUID": DX if number % 2 else CR,
        "Modality": "DX" if number % 2 else "CR",
        "SOPInstanceUID": f"{STUDY}.{number % 2}.{number}",
        "SeriesInstanceUID": f"{STUDY}.{number % 2}",
        "StudyInstanceUID": STUDY,
        "InstanceNumber": number,
    } | attributes
    bits = 8 if transfer_syntax == uid.JPEGBaseline8Bit else BITS
    stored = phantom(bits, SIDE_PX, seed=number)
    if bits == 8:
        stored = stored.astype("uint8")
    if uid.UID(transfer_syntax).is_encapsulated:
        return compressed(stored, transfer_syntax, bits=bits, **own)
    return part10(data_set(stored, bits=bits, **own), transfer_syntax)


def configuration(folder: Path, archive_port: int) -> dict[str, Any]:
    said = facts(folder, archive_port, judges=2)
    said["destination"][0]["ae_title"] = AE_TITLE
    said["route"][0]["unvalidated_heatmaps"] = True  # an overlay, whichever bundle ships
    return said


def run(*command: str) -> str:
    """What a program says, on both channels; it must end well."""
    ended = tried(*command)
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def tried(*command: str) -> "subprocess.CompletedProcess[str]":
    path = program(command[0])
    return subprocess.run(
        [path, *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def store(port: int, file: Path, propose: str) -> None:
    to = ("-aet", "SENDER", "-aec", "NODE", "127.0.0.1", str(port))
    run("storescu", "--required", propose, *to, str(file))


def status_of(folder: Path) -> dict[str, Any]:
    """What ``chestxray pacs status --json`` says."""
    asked = "import sys; from chestxray.cli_pacs import pacs; pacs(sys.argv[1:])"
    file = str(folder / "pacs.toml")
    told = subprocess.run(
        [sys.executable, "-c", asked, "status", file, "--json"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    status: dict[str, Any] = json.loads(told.stdout)
    return status


@dataclass(frozen=True)
class Answered:
    """An archive in which a node has answered a study of frontal and one lateral radiograph."""

    archive: Orthanc
    node: NodeProcess
    folder: Path
    frontal: frozenset[str]
    """SOP Instance UIDs of what is to be answered."""

    def answers(self, sop_class: str) -> list[bytes]:
        """Files as the archive gives them."""
        found = self.archive.instances()
        return [self.archive.file(of["id"]) for of in found if of["SOPClassUID"] == sop_class]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    folder = tmp_path_factory.mktemp("partners")
    with (
        orthanc(folder / "orthanc", senders=["NODE"]) as archive,
        node(folder, configuration(folder, archive.dicom_port)) as our_node,
    ):
        frontal = set()
        for number, (transfer_syntax, propose) in enumerate(PROPOSED.items(), 1):
            file = folder / f"{number}.dcm"
            file.write_bytes(source(number, transfer_syntax))
            frontal.add(f"{STUDY}.{number % 2}.{number}")
            store(our_node.port, file, propose)
        lateral = folder / "lateral.dcm"
        lateral.write_bytes(source(99, uid.ExplicitVRLittleEndian, **LATERAL))
        store(our_node.port, lateral, "--propose-little")
        wait_until(lambda: archive.count() == 2 * len(frontal))
        wait_until(lambda: status_of(folder)["waiting"] == 0)
        yield Answered(archive, our_node, folder, frozenset(frontal))


@pytest.mark.parametrize("sop_class", [REPORT, OVERLAY], ids=["report", "overlay"])
def test_the_archive_has_one_answer_of_each_kind_for_each_frontal_radiograph_in_its_study(
    answered: Answered, sop_class: str
) -> None:
    found = [of for of in answered.archive.instances() if of["SOPClassUID"] == sop_class]
    assert Counter(map(source_of, found)) == dict.fromkeys(answered.frontal, 1)
    assert {of["StudyInstanceUID"] for of in found} == {STUDY}
    assert len({of["SeriesInstanceUID"] for of in found}) == 2  # as the sources' series


def test_the_archive_shows_them_in_one_study_and_nothing_else(answered: Answered) -> None:
    (study,) = answered.archive.http.get("studies", params={"expand": ""}).json()
    assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY
    assert study["PatientMainDicomTags"]["PatientID"] == "P-1"
    found = Counter(of["SOPClassUID"] for of in answered.archive.instances())
    assert found == {REPORT: len(answered.frontal), OVERLAY: len(answered.frontal)}


def test_dsrdump_reads_the_report(answered: Answered, tmp_path: Path) -> None:
    file = tmp_path / "report.dcm"
    file.write_bytes(answered.answers(REPORT)[0])
    read = run("dsrdump", str(file))
    assert "Comprehensive 3D SR" in read
    assert "Imaging Measurement Report" in read
    assert "NOT FOR DIAGNOSTIC USE" in read
    assert "Probability" in read
    assert "Error" not in read


@pytest.mark.parametrize("sop_class", [REPORT, OVERLAY], ids=["report", "overlay"])
def test_dciodvfy_finds_no_error(answered: Answered, sop_class: str, tmp_path: Path) -> None:
    for number, content in enumerate(answered.answers(sop_class)):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(content)
        told = tried("dciodvfy", str(file)).stdout
        assert [line for line in told.splitlines() if line.startswith("Error")] == []


def test_the_status_counts_what_came_what_was_answered_and_why_not(answered: Answered) -> None:
    status = status_of(answered.folder)
    n = len(answered.frontal)
    assert (status["received"], status["answered"], status["waiting"]) == (n + 1, n, 0)
    assert status["refused"] == {"wrong_view": 1}
    assert status["destinations"]["archive"]["answered"] == n


def test_nothing_received_and_no_answer_stays_in_the_queues_folder(answered: Answered) -> None:
    assert list((answered.folder / "node" / "files").iterdir()) == []


def test_the_log_names_no_patient_and_no_uid(answered: Answered) -> None:
    said = answered.node.said
    for identifier in ("Phantom", "Paula", "P-1", "A-1", UID_ROOT, "20260102", "2.25."):
        assert identifier not in said


def test_echoscu_is_answered(answered: Answered) -> None:
    port = str(answered.node.port)
    run("echoscu", "-aet", "SENDER", "-aec", "NODE", "127.0.0.1", port)


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("STRANGER", "NODE", "Calling AE Title Not Recognized"),
        ("SENDER", "SOMEBODY", "Called AE Title Not Recognized"),
    ],
)
def test_an_unknown_ae_title_is_rejected(
    answered: Answered, calling: str, called: str, reason: str
) -> None:
    port = str(answered.node.port)
    ended = tried("echoscu", "-aet", calling, "-aec", called, "127.0.0.1", port)
    assert ended.returncode != 0
    assert reason in ended.stdout


def test_what_comes_while_the_archive_is_down_arrives_when_it_is_up(tmp_path: Path) -> None:
    archive_port, n = free_port(), 3
    with node(tmp_path, configuration(tmp_path, archive_port)) as our_node:
        for number in range(1, n + 1):
            file = tmp_path / f"{number}.dcm"
            file.write_bytes(dicom(phantom(BITS, SIDE_PX, number), SOPInstanceUID=f"1.2.{number}"))
            store(our_node.port, file, "--propose-little")
        wait_until(lambda: "unreachable" in our_node.said)
        down = status_of(tmp_path)
        assert (down["answered"], down["waiting"]) == (0, n)
        with orthanc(tmp_path / "orthanc", senders=["NODE"], dicom_port=archive_port) as archive:
            wait_until(lambda: archive.count() == 2 * n)
            wait_until(lambda: status_of(tmp_path)["answered"] == n)
            assert status_of(tmp_path)["destinations"]["archive"]["failing"] == {}
            assert our_node.end() == 0


# --- docs/pacs.md


def section(name: str) -> str:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", PAGE, flags=re.DOTALL)
    assert found, name
    return found[1]


def commands(name: str) -> str:
    (found,) = re.findall(r"^```bash.*?\n(.*?)^```$", section(name), re.DOTALL | re.MULTILINE)
    return str(found)


def shell(script: str, folder: Path) -> str:
    """What the commands of a page say; each must end well."""
    # Not the whole environment's bin: pynetdicom's programs have the names of DCMTK's.
    ours = folder / "bin"
    ours.mkdir(exist_ok=True)
    if not (ours / "chestxray").exists():
        (ours / "chestxray").symlink_to(Path(sys.executable).parent / "chestxray")
    ended = subprocess.run(
        [program("bash"), "-euc", script],
        cwd=folder,
        env=os.environ | {"PATH": f"{ours}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_the_walk_through_of_the_page_ends_with_the_answers_in_the_archive(tmp_path: Path) -> None:
    kinds = {REPORT, OVERLAY} if read_bundle(BUNDLED).manifest.evidence.validated else {REPORT}
    for name in ("img2dcm", "curl"):
        program(name)
    our_port = free_port()
    with orthanc(tmp_path / "orthanc", senders=["CHESTXRAY"]) as archive:
        text = (REPOSITORY / "configs" / "pacs.toml").read_text(encoding="utf-8")
        script = commands("pacs-trial")
        for there, here in {
            "port = 11112": f"port = {our_port}",
            "port = 4242": f"port = {archive.dicom_port}",
            "../runs/pacs": "queue",
        }.items():
            assert there in text
            text = text.replace(there, here)
        (tmp_path / "pacs.toml").write_text(text, encoding="utf-8")
        for there, here in {
            "11112": str(our_port),
            "127.0.0.1:8042": archive.http.base_url.netloc.decode(),
            "configs/pacs.toml": "pacs.toml",
            "src/": f"{REPOSITORY}/src/",
        }.items():
            assert there in script
            script = script.replace(there, here)
        our_node = NodeProcess(tmp_path / "pacs.toml", tmp_path / "log")
        try:
            assert our_node.port == our_port
            shell(script, tmp_path)
            wait_until(lambda: archive.count() == len(kinds))
            assert {of["SOPClassUID"] for of in archive.instances()} == kinds
            assert {of["PatientID"] for of in archive.instances()} == {"TRIAL"}
            assert our_node.end() == 0
        finally:
            if our_node.process.poll() is None:
                our_node.kill()


def test_the_certificates_of_the_page_secure_the_node_and_open_it_for_those_who_have_one(
    tmp_path: Path,
) -> None:
    shell(commands("pacs-tls"), tmp_path)
    said = configuration(tmp_path, free_port())
    said["node.tls"] = {
        name: str(tmp_path / file)
        for name, file in (("certificate", "node.pem"), ("key", "node-key.pem"), ("ca", "ca.pem"))
    }
    (asked,) = re.findall(r"`(echoscu \+tls.*?)`", PAGE)
    with node(tmp_path, said) as our_node:
        port = our_node.port
        asked = (
            asked.replace("11112", str(port))
            .replace("CHESTXRAY", "NODE")
            .replace("STORESCU", "SENDER")
        )
        shell(asked, tmp_path)
        assert tried("echoscu", "-aet", "SENDER", "-aec", "NODE", "127.0.0.1", str(port)).returncode
        stranger = ("+tla", "-ic", "-aet", "SENDER", "-aec", "NODE", "127.0.0.1", str(port))
        assert tried("echoscu", *stranger).returncode
