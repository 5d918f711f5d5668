"""Every licence that comes along is known and allowed, and docs/licences.md says which."""

import importlib.metadata
from email.message import Message
from pathlib import Path

import licences
import pytest
from packaging.utils import canonicalize_name

BASE = licences.brought_by()
ALL = BASE | licences.brought_by_extras()


class Stated(importlib.metadata.Distribution):
    """A distribution of which only the metadata matter."""

    def __init__(self, name: str, **fields: str) -> None:
        self._message = Message()
        for field, value in {"Name": name, "Version": "1", **fields}.items():
            self._message[field.replace("_", "-")] = value

    def read_text(self, filename: str) -> str | None:
        return self._message.as_string() if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        raise NotImplementedError


@pytest.mark.parametrize("name", ALL)
def test_the_licence_is_known_and_allowed(name: str) -> None:
    assert licences.licence_of(ALL[name])


def test_nothing_in_the_base_install_needs_a_reason() -> None:
    assert BASE.keys() & licences.NOTED.keys() == set()
    assert all(licences.is_permissive(licences.licence_of(one)) for one in BASE.values())


def test_no_licence_is_stated_that_the_metadata_state() -> None:
    assert licences.STATED.keys() <= ALL.keys()
    superfluous = [n for n in licences.STATED if licences.licence_in_metadata(ALL[n])]
    assert superfluous == []


def test_every_reason_is_of_something_that_comes_along() -> None:
    explained = licences.NOTED.keys() | licences.NATIVE.keys() | licences.MENTIONED.keys()
    assert explained <= ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_text_that_speaks_of_the_gpl_is_explained(name: str) -> None:
    """A pin that is raised may bring what the metadata do not tell."""
    if name not in licences.NATIVE and name not in licences.MENTIONED:
        assert licences.mentions_of_the_gpl(ALL[name]) == []
    if name in licences.MENTIONED:
        assert licences.mentions_of_the_gpl(ALL[name])


@pytest.mark.parametrize("name", licences.NATIVE)
def test_the_texts_of_what_a_wheel_carries_are_where_the_list_says(name: str) -> None:
    site_packages = Path(str(ALL[name].locate_file("")))
    assert list(site_packages.glob(licences.NATIVE[name].texts))


def test_every_wheel_with_a_folder_of_libraries_is_in_the_list() -> None:
    """``NAME.libs`` is where auditwheel puts what it found linked."""
    carrying = {
        name
        for name, found in ALL.items()
        if any(file.parts[0].endswith(".libs") for file in found.files or [])
    }
    assert "numpy" in carrying
    assert carrying <= licences.NATIVE.keys()


def test_what_is_gpl_in_the_sources_of_imagecodecs_is_not_in_its_wheel() -> None:
    files = [file.as_posix() for file in ALL["imagecodecs"].files or []]
    assert any("_jpegls" in file for file in files)
    unwanted = ("_heif", "libheif", "x265", "de265", "_jetraw", "_jpegxs")
    assert [file for file in files if any(part in file for part in unwanted)] == []


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT"}, "MIT"),
        ({"License": "mit"}, "MIT"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({"License_Expression": "GPL-2.0-only OR MIT"}, "GPL-2.0-only OR MIT"),
    ],
)
def test_a_licence_that_leaves_us_a_permissive_choice_is_allowed(
    fields: dict[str, str], licence: str
) -> None:
    assert licences.licence_of(Stated("some", **fields)) == licence


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "no known licence"),
        ({"License": "BSD"}, "no known licence"),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, "no known licence"),
        ({"License": "Dual licence, see the web"}, "no known licence"),
        ({"License_Expression": "GPL-3.0-or-later"}, "neither permissive nor noted"),
        ({"License_Expression": "MIT AND AGPL-3.0-only"}, "neither permissive nor noted"),
        ({"License_Expression": "LGPL-3.0-only"}, "neither permissive nor noted"),
        ({"License_Expression": "MPL-2.0"}, "neither permissive nor noted"),
        ({"License_Expression": "GPL-3.0-only WITH GCC-exception-3.1"}, "neither permissive"),
        ({"License_Expression": "LicenseRef-Proprietary"}, "neither permissive"),
    ],
)
def test_a_licence_that_is_unknown_or_not_allowed_is_refused(
    fields: dict[str, str], said: str
) -> None:
    with pytest.raises(licences.LicenceError, match=said):
        licences.licence_of(Stated("some", **fields))


def test_a_reason_does_not_let_the_gpl_in() -> None:
    (noted, *_) = licences.NOTED
    assert licences.licence_of(Stated(noted, License_Expression="MPL-2.0"))
    with pytest.raises(licences.LicenceError, match="GPL"):
        licences.licence_of(Stated(noted, License_Expression="GPL-3.0-only"))


def test_the_page_is_what_the_pins_give() -> None:
    assert licences.page() == licences.PAGE.read_text(encoding="utf-8")


def test_the_names_are_canonical() -> None:
    tables = (licences.STATED, licences.NOTED, licences.NATIVE, licences.MENTIONED)
    assert [name for table in tables for name in table if canonicalize_name(name) != name] == []
