"""deploy/compose.yaml and the files that it mounts agree, and with Debian's Orthanc they work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chestxray.pacs.config import NodeConfig, read_config
from factories.dicom_files import dicom
from factories.orthanc import Orthanc, orthanc, source_of
from factories.pacs import OVERLAY, REPORT, NodeProcess, free_port
from factories.servers import wait_until

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


@pytest.fixture(scope="module")
def archive() -> dict[str, Any]:
    """What Orthanc is told."""
    found: dict[str, Any] = json.loads((DEPLOY / "orthanc.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def config() -> NodeConfig:
    return read_config(DEPLOY / "pacs.toml")


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted where: container's path to ours, or a volume's name."""
    return {of.split(":")[1]: of.split(":")[0] for of in service["volumes"]}


def published(service: dict[str, Any]) -> dict[int, str]:
    """The container's ports, and at which address of this machine they are."""
    return {int(of.split(":")[2]): of.split(":")[0] for of in service["ports"]}


def test_everything_is_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    assert {at for of in services.values() for at in published(of).values()} == {"127.0.0.1"}


def test_the_node_finds_its_configuration_and_a_place_for_its_queue(
    services: dict[str, Any], config: NodeConfig
) -> None:
    node = services["chestxray"]
    assert node["command"][:2] == ["pacs", "run"]
    mounted = mounts(node)
    assert mounted[node["command"][2]] == "./pacs.toml"
    assert node["healthcheck"]["test"][1:] == [
        *("chestxray", "pacs", "status", node["command"][2], "--json")
    ]
    assert mounted[str(config.node.folder.parent)] == "queue"
    assert config.node.port in published(node)


def test_the_archive_finds_its_configuration_and_its_storage(
    services: dict[str, Any], archive: dict[str, Any]
) -> None:
    mounted = mounts(services["orthanc"])
    assert mounted["/etc/orthanc/orthanc.json"] == "./orthanc.json"
    assert mounted[archive["StorageDirectory"]] == "archive"
    assert set(published(services["orthanc"])) == {archive["HttpPort"], archive["DicomPort"]}


def test_node_and_archive_know_each_other(
    services: dict[str, Any], archive: dict[str, Any], config: NodeConfig
) -> None:
    (destination,) = config.destination
    assert (destination.ae_title, destination.port) == (archive["DicomAet"], archive["DicomPort"])
    assert destination.host in services
    assert archive["DicomAet"] in {peer.ae_title for peer in config.peer}
    (ours,) = archive["DicomModalities"].values()
    assert ours == [config.node.ae_title, "chestxray", config.node.port]


def test_the_node_may_nothing_that_it_need_not(services: dict[str, Any]) -> None:
    node = services["chestxray"]
    assert node["read_only"]
    assert node["cap_drop"] == ["ALL"]
    assert node["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in node
    recipe = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    last = recipe[recipe.rindex("FROM ") :]
    assert re.search(r"^USER (?!root|0)", last, flags=re.MULTILINE)
    assert 'ENTRYPOINT ["chestxray"]' in last


def test_what_the_image_is_made_of_is_not_ignored() -> None:
    recipe = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        part
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, flags=re.MULTILINE)
        for part in line.split()
    }
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line[1:] for line in lines if line.startswith("!")}
    assert all((REPOSITORY / part).exists() for part in copied)


def test_no_image_names_a_registry(services: dict[str, Any]) -> None:
    recipe = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    images = [of["image"] for of in services.values()]
    images += re.findall(r"^ARG PYTHON_IMAGE=(\S+)", recipe, flags=re.MULTILINE)
    assert all("." not in image.partition("/")[0] or "/" not in image for image in images)


def test_orthanc_sends_a_radiograph_to_the_node_and_has_its_answers(
    archive: dict[str, Any], tmp_path: Path
) -> None:
    """The walk-through of docs/pacs.md, with other ports and folders."""
    port, archive_port = free_port(), free_port()
    text = (DEPLOY / "pacs.toml").read_text(encoding="utf-8")
    for there, here in {
        'host = "0.0.0.0" ': 'host = "127.0.0.1"',
        "port = 11112": f"port = {port}",
        "/var/lib/chestxray": str(tmp_path),
        'host = "orthanc"': 'host = "127.0.0.1"',
        "port = 4242": f"port = {archive_port}",
        'modality = ["CR", "DX"]': 'modality = ["CR", "DX"]\ninput_check = "warn"',
    }.items():
        assert there in text
        text = text.replace(there, here)
    config = tmp_path / "pacs.toml"
    config.write_text(text, encoding="utf-8")

    ((name, (ae_title, _, _)),) = archive["DicomModalities"].items()
    told = archive | {
        "DicomModalities": {name: [ae_title, "127.0.0.1", port]},
        "RemoteAccessAllowed": False,
    }
    for replaced in ("StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort"):
        del told[replaced]
    ((user, password),) = archive["RegisteredUsers"].items()
    with orthanc(
        tmp_path / "orthanc", dicom_port=archive_port, auth=(user, password), **told
    ) as running:
        node = NodeProcess(config, tmp_path / "log")
        try:
            assert node.port == port
            stored = running.http.post("instances", content=dicom()).raise_for_status().json()
            sent = running.http.post(f"modalities/{name}/store", content=stored["ID"])
            assert sent.raise_for_status().json()["FailedInstancesCount"] == 0
            wait_until(lambda: running.count() == 3)
            assert answers(running) == {REPORT, OVERLAY}
            assert node.end() == 0
        finally:
            if node.process.poll() is None:
                node.kill()


def answers(archive: Orthanc) -> set[str]:
    """SOP classes of what answers the one radiograph, all in its study."""
    (source,) = [of for of in archive.instances() if of["Modality"] == "CR"]
    found = [of for of in archive.instances() if of["Modality"] != "CR"]
    assert {source_of(of) for of in found} == {source["SOPInstanceUID"]}
    assert {of["StudyInstanceUID"] for of in found} == {source["StudyInstanceUID"]}
    return {of["SOPClassUID"] for of in found}
