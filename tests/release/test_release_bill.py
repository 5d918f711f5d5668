"""The SBOM and the licence list of what ships."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bill import installed_in, main, write_lists
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from licences import licence_of
from packaging.utils import canonicalize_name

from chestxray import __version__
from chestxray.inference import BUNDLED, read_bundle
from factories.release import Release

pytestmark = pytest.mark.timeout(600)  # whichever is first builds and installs


@pytest.fixture(scope="module")
def lists(
    environment: Path, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What is written beside the wheel: text by file name."""
    folder = tmp_path_factory.mktemp("lists")
    wheel = shutil.copy(release.wheel, folder)
    write_lists(environment, Path(wheel))
    Path(wheel).unlink()
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


@pytest.fixture(scope="module")
def bill(lists: dict[str, str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(lists[f"chestxray-{__version__}.cdx.json"])
    return read


def distributions_of(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        canonicalize_name(one["name"]): one
        for one in bill["components"]
        if one["type"] != "machine-learning-model"
    }


def test_the_sbom_is_valid_cyclonedx_and_would_not_be_without_a_name(bill: dict[str, Any]) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    nameless = json.loads(json.dumps(bill))
    del nameless["components"][0]["name"]
    assert validator.validate_str(json.dumps(nameless)) is not None


def test_the_root_is_ours_with_its_version_and_the_wheels_hash(
    bill: dict[str, Any], release: Release
) -> None:
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("chestxray", __version__)
    assert root["purl"] == f"pkg:pypi/chestxray@{__version__}"
    assert root["licenses"][0]["license"]["id"] == "MIT"
    (hashed,) = root["hashes"]
    assert hashed["content"] == hashlib.sha256(release.wheel.read_bytes()).hexdigest()


def test_the_sbom_names_every_distribution_with_version_licence_and_purl(
    bill: dict[str, Any], environment: Path
) -> None:
    named = distributions_of(bill)
    installed = {canonicalize_name(one.name): one for one in installed_in(environment)}
    del installed["chestxray"]  # the root
    assert named.keys() == installed.keys()
    for name, one in named.items():
        version = installed[name].version
        assert one["version"] == version
        assert one["purl"] == f"pkg:pypi/{name}@{version}"
        assert one["licenses"][0]["expression"] == licence_of(installed[name])


def test_the_sbom_says_what_needs_what(bill: dict[str, Any]) -> None:
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    reached, todo = set(), [bill["metadata"]["component"]["bom-ref"]]
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo += needs[ref]
    assert {one["bom-ref"] for one in distributions_of(bill).values()} <= reached


def test_the_sbom_names_the_bundle_by_its_identity(bill: dict[str, Any]) -> None:
    (named,) = [one for one in bill["components"] if one["type"] == "machine-learning-model"]
    shipped = read_bundle(BUNDLED)
    assert named["name"] == shipped.manifest.name
    assert named["version"] == shipped.sha256
    assert named["hashes"][0]["content"] == shipped.manifest.model_sha256


def test_the_licence_list_has_a_row_for_every_distribution_and_its_texts_exist(
    environment: Path, lists: dict[str, str]
) -> None:
    text = lists[f"chestxray-{__version__}-licences.md"]
    rows = dict(re.findall(r"^\| (\S+) \| (\S+) \|", text, re.MULTILINE))
    installed = {canonicalize_name(one.name): one.version for one in installed_in(environment)}
    assert installed.items() <= rows.items()
    (site_packages,) = environment.glob("lib/python*/site-packages")
    named = [path.split(" (")[0] for path in re.findall(r"`([^`]+)`", text)]
    assert [path for path in named if not list(site_packages.glob(path))] == []


def test_both_lists_and_nothing_else_are_written_beside_the_wheel(lists: dict[str, str]) -> None:
    assert lists.keys() == {
        f"chestxray-{__version__}.cdx.json",
        f"chestxray-{__version__}-licences.md",
    }


@pytest.mark.parametrize("arguments", [[], ["one.whl", "another.whl"]])
def test_one_wheel_is_wanted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "WHEEL" in capsys.readouterr().err


def test_a_wheel_that_cannot_be_installed_ends_it(tmp_path: Path) -> None:
    wheel = tmp_path / "chestxray-0-py3-none-any.whl"
    wheel.write_bytes(b"no archive")
    with pytest.raises(SystemExit, match="pip"):
        main([str(wheel)])
    assert list(tmp_path.iterdir()) == [wheel]
