"""The walk over a file's elements finds what pydicom finds, in the files that pydicom ships."""

import warnings
from pathlib import Path

import pydicom
import pytest

from chestxray.errors import TruncatedFileError
from chestxray.imaging import Limits
from chestxray.imaging.dicom import read_data_set

FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
CUT = ("rtplan_truncated", "MR_truncated", "no_meta")
"""Files that end too early; the last begins with a damaged tag, so its lengths are none."""

PIXEL_DATA, CHARACTER_SET = 0x7FE00010, 0x00080005


def test_there_are_files_to_compare():
    assert len(FILES) > 50
    assert {file.stem for file in FILES} >= set(CUT)


@pytest.mark.parametrize("file", [f for f in FILES if f.stem not in CUT], ids=lambda f: f.name)
def test_the_walk_finds_what_pydicom_finds(file):
    walked = read_data_set(file.read_bytes(), Limits())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is wrong in some
        read = pydicom.dcmread(file, force=True)
    tags = [tag for tag in sorted(read.keys()) if tag.group != 0 and tag <= PIXEL_DATA]
    assert sorted(walked.keys()) == tags
    for tag in tags:
        stored = read.get_item(tag)
        if stored.is_raw and tag != CHARACTER_SET:
            assert (walked.get_item(tag).value or b"") == (stored.value or b"")
    if "TransferSyntaxUID" in read.file_meta:
        assert walked.file_meta.TransferSyntaxUID == read.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_ends_too_early_is_told_so(name):
    (file,) = (file for file in FILES if file.stem == name)
    with pytest.raises(TruncatedFileError):
        read_data_set(file.read_bytes(), Limits())
