import pytest

from chestxray.dataset.remarks import Remarks, counted
from chestxray.errors import DatasetError


def test_remarks_are_counted_and_the_first_three_named_in_an_error(tmp_path):
    remarks = Remarks(tmp_path / "t.csv")
    remarks.raise_any()
    for name in "abcd":
        remarks.add("odd rows", name)
    remarks.add("even rows", "z")
    with pytest.raises(DatasetError) as caught:
        remarks.raise_any()
    assert str(caught.value) == (
        f"{tmp_path / 't.csv'}: odd rows: 4 (a, b, c, …); even rows: 1 (z)"
    )


def test_remarks_are_said_a_line_for_each_kind(tmp_path):
    remarks = Remarks(tmp_path)
    for name in "abcd":
        remarks.add("odd files", name)
    remarks.add("even files", "z")
    told: list[str] = []
    remarks.tell(told.append)
    assert told == [f"{tmp_path}: odd files: 4 (a, b, c, …)", f"{tmp_path}: even files: 1 (z)"]


def test_any_name_can_be_printed_on_one_line():
    names = ["ä ö.png", "\udcf6.png", "new\nline\r.png"]
    assert counted(names) == r"3 (ä ö.png, \udcf6.png, new\nline\r.png)"
