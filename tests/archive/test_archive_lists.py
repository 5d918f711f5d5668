"""Lists of paths as shells, spreadsheets and Windows write them."""

import os
from pathlib import Path

import numpy as np
import pytest

from chestxray.archive.lists import LONGEST_NAME, is_list, paths_in
from chestxray.errors import ConfigError
from factories import dicom_files, images
from factories.requests import radiograph_png

GREY = np.tile(np.arange(40, dtype=np.uint8), (40, 1))
NAMES = ["a.png", "in/ä ö.jpeg", "b"]


def listed(file: Path, raw: bytes) -> list[str]:
    file.write_bytes(raw)
    assert is_list(str(file))
    return list(paths_in(str(file)))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\0"], ids=ascii)
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
def test_a_list_is_read_in_every_encoding_and_with_every_end_of_a_name(
    tmp_path, encoding, end, last
) -> None:
    text = end.join(NAMES) + (end if last else "")
    assert listed(tmp_path / "list", text.encode(encoding)) == NAMES


def test_between_zero_bytes_a_name_may_hold_ends_of_lines(tmp_path) -> None:
    names = ["new\nline", "carriage\rreturn", "both\r\n", "\udcff.png"]
    raw = b"".join(os.fsencode(name) + b"\0" for name in names)
    assert listed(tmp_path / "list", raw) == names


@pytest.mark.parametrize("end", ["\n", "\0"], ids=ascii)
def test_a_list_longer_than_what_is_read_at_once_loses_nothing(tmp_path, end) -> None:
    names = [f"{'ä' * (n % 97)}{n}.png" for n in range(2_000)]
    assert listed(tmp_path / "list", end.join(names).encode()) == names
    longest = ["x" * LONGEST_NAME] * 3
    assert listed(tmp_path / "list", end.join(longest).encode()) == longest


@pytest.mark.parametrize(
    "content",
    [
        images.png(GREY),
        images.jpeg(GREY),
        dicom_files.dicom(),
        dicom_files.dicom()[132:],
        images.gif(),
        b"PK\x03\x04\x14\0",
        b"\0\0\1\0",
        radiograph_png(0),
    ],
    ids=["png", "jpeg", "dicom", "no preamble", "gif", "zip", "icon", "radiograph"],
)
def test_a_binary_file_is_no_list(tmp_path, content) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not is_list(str(tmp_path / "x"))


@pytest.mark.parametrize("end", ["\n", "\0"], ids=ascii)
def test_what_no_path_can_be_is_wrong_use(tmp_path, end) -> None:
    file = tmp_path / "list"
    file.write_text(f"a.png{end}{'x' * 100_000}{end}b.png")
    with pytest.raises(ConfigError, match="neither an archive nor a list"):
        list(paths_in(str(file)))


def test_a_list_that_breaks_off_in_a_letter_is_wrong_use_that_names_it(tmp_path) -> None:
    file = tmp_path / "list"
    file.write_bytes("a.png\r\n".encode("utf-16")[:-1])
    with pytest.raises(ConfigError, match=r"list is not UTF-16 throughout"):
        list(paths_in(str(file)))
