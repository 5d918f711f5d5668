"""A configuration that is wrong is an error that says where; the example works."""

from pathlib import Path
from typing import Any

import pytest

from chestxray.errors import ConfigError
from chestxray.pacs.config import Peer, Route, read_config
from factories.pacs import facts, write_config

EXAMPLE = Path(__file__).parents[2] / "configs" / "pacs.toml"


def read(folder: Path, **changes: Any) -> Any:
    return read_config(write_config(folder, facts(folder) | changes))


def test_the_example_can_be_read() -> None:
    config = read_config(EXAMPLE)
    assert config.route[0].destination == config.destination[0].name
    assert config.route[0].fits("DX", "", "ORTHANC")


def test_relative_paths_begin_beside_the_file(tmp_path: Path) -> None:
    node = {"ae_title": "NODE", "folder": "queue"}
    assert read(tmp_path, node=node).node.folder == tmp_path / "queue"


def test_bundles_are_a_folder_or_a_table_of_which_the_first_is_the_default(tmp_path: Path) -> None:
    node = {"ae_title": "NODE", "folder": "queue"}

    def bundles(**said: Any) -> list[tuple[str | None, Path]]:
        found: list[tuple[str | None, Path]] = read(tmp_path, node=node | said).node.bundles
        return found

    assert bundles() == []
    assert bundles(bundle="one") == [(None, tmp_path / "one")]
    assert bundles(bundle={"b": "two", "a": "/three"}) == [
        ("b", tmp_path / "two"),
        ("a", Path("/three")),
    ]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"node": {"ae_title": "NODE", "folder": "x", "bundle": {}}}, "node.bundle"),
        ({"node": {"ae_title": "NODE", "folder": "x", "bundle": {"a": 1}}}, "node.bundle.*a"),
        ({"route": [{"destination": "archive", "bundles": ["a", "a"]}]}, "route.0.*named twice"),
        ({"route": [{"destination": "archive", "population": "ask"}]}, "route.0.population"),
        ({"route": [{"destination": "archive", "acquisition": "ask"}]}, "route.0.acquisition"),
        ({"node": {"ae_title": "NODE", "folder": "x", "prot": 1}}, "node.prot"),
        ({"node": {"ae_title": "A" * 17, "folder": "x"}}, "node.ae_title"),
        ({"node": {"ae_title": "  ", "folder": "x"}}, "node.ae_title"),
        ({"node": {"ae_title": "A\\\\B", "folder": "x"}}, "node.ae_title"),
        ({"node": {"ae_title": "NODE"}}, "node.folder"),
        ({"peer": [{"ae_title": "A", "hosts": ["archive.example"]}]}, "peer.0.hosts.0"),
        ({"route": [{"destination": "elsewhere"}]}, "route.0.destination"),
        ({"route": [{"destination": "archive", "input_check": "off"}]}, "route.0.input_check"),
        ({"routes": [{"destination": "archive"}]}, "routes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=rf"pacs\.toml: .*{where}"):
        read(tmp_path, **changes)


def test_two_destinations_of_one_name_are_refused(tmp_path: Path) -> None:
    destination = facts(tmp_path)["destination"]
    with pytest.raises(ConfigError, match="two destinations"):
        read(tmp_path, destination=destination * 2)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    file = write_config(tmp_path, facts(tmp_path))
    file.write_text(file.read_text() + '\n[destination.tls]\ncertificate = "a.pem"\n')
    file.write_text(_move_last_section_behind_destination(file.read_text()))
    with pytest.raises(ConfigError, match="together"):
        read_config(file)


def _move_last_section_behind_destination(text: str) -> str:
    body, _, section = text.partition("\n[destination.tls]")
    return body.replace("[[route]]", f"[destination.tls]{section}\n[[route]]")


def test_what_is_not_toml_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "pacs.toml").write_text("node = [")
    with pytest.raises(ConfigError, match="not TOML"):
        read_config(tmp_path / "pacs.toml")


def test_a_missing_file_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "pacs.toml")


@pytest.mark.parametrize(
    ("title", "address", "fits"),
    [
        ("MODALITY", "10.1.2.3", True),
        ("MODALITY", "::ffff:10.1.2.3", True),
        ("MODALITY", "10.2.2.3", False),
        ("MODALITY", "192.168.7.7", True),
        ("MODALITY", "192.168.7.8", False),
        ("OTHER", "10.1.2.3", False),
    ],
)
def test_a_peer_is_known_by_its_title_and_address(title: str, address: str, fits: bool) -> None:
    peer = Peer.model_validate({"ae_title": "MODALITY", "hosts": ["10.1.0.0/16", "192.168.7.7"]})
    assert peer.fits(title, address) is fits


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"modality": ["CR", "DX"]}, True),
        ({"modality": ["dx"]}, True),
        ({"modality": ["CR"]}, False),
        ({"body_part": ["CHEST"]}, False),
        ({"body_part": ["CHEST", ""]}, True),
        ({"calling_ae": ["ROOM1"]}, True),
        ({"calling_ae": ["ROOM2"]}, False),
        ({"modality": ["DX"], "calling_ae": ["ROOM2"]}, False),
    ],
)
def test_a_route_fits_when_all_that_it_says_does(rule: dict[str, Any], fits: bool) -> None:
    route = Route.model_validate({"destination": "archive"} | rule)
    assert route.fits("DX", "", "ROOM1") is fits
