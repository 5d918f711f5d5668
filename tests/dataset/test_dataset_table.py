import pytest

from chestxray.dataset.table import Complaints, Row, read_table
from chestxray.errors import DatasetError

TEXT = "file,patient\nä.png,7\n"
ROWS = [Row(2, {"file": "ä.png", "patient": "7"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_is_read_in_what_spreadsheets_save(tmp_path, encoding):
    file = tmp_path / "t.csv"
    file.write_bytes(TEXT.encode(encoding))
    assert read_table(file, ["file", "patient"]) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT.replace("file,patient", " File , PATIENT"),
        TEXT.replace("ä.png", '" ä.png"'),
        TEXT + ",\n\n",
    ],
)
def test_a_table_is_read_however_it_is_laid_out(tmp_path, text):
    file = tmp_path / "t.csv"
    file.write_text(text, encoding="utf-8", newline="")
    assert read_table(file, ["file", "patient"]) == ROWS


def test_cells_that_say_nothing_are_empty(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b,c,d,e\n nan ,None,N/A,?,0\n1\n", encoding="utf-8")
    assert [row.cells for row in read_table(file, [])] == [
        {"a": "", "b": "", "c": "", "d": "", "e": "0"},
        {"a": "1", "b": "", "c": "", "d": "", "e": ""},
    ]


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"", "lacks the columns file"),
        (b"patient\n1\n", "lacks the columns file; it has patient"),
        (b"file,file\n1,2\n", "several columns file"),
        (b"file,a\nx.png,1,2\n", "line 2 has more cells than columns"),
        (b'file,a\n"x.png,1\n', "line 2: "),
        ("file\nx.png\nä.png\n".encode("cp1252"), "line 3 is not UTF-8"),
        (b"\xff\xfef\0i\0", "lacks the columns file; it has fi"),
        (b"\xff\xfef\0i", "is not UTF-16"),
        (b"PK\x03\x04file\0", "no table of text"),
    ],
)
def test_what_is_no_such_table_is_an_error_that_says_why(tmp_path, raw, wrong):
    file = tmp_path / "t.csv"
    file.write_bytes(raw)
    with pytest.raises(DatasetError, match=wrong) as caught:
        read_table(file, ["file"])
    assert str(file) in str(caught.value)


def test_complaints_are_counted_and_the_first_three_named(tmp_path):
    complaints = Complaints(tmp_path / "t.csv")
    complaints.raise_any()
    for name in "abcd":
        complaints.add("odd rows", name)
    complaints.add("even rows", "z")
    with pytest.raises(DatasetError) as caught:
        complaints.raise_any()
    assert str(caught.value) == (
        f"{tmp_path / 't.csv'}: odd rows: 4 (a, b, c, …); even rows: 1 (z)"
    )
