import pytest

from chestxray.dataset.table import Row, read_table
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
        TEXT.replace(",", "|"),
        TEXT.replace("file,patient", '"file";"patient"').replace("png,", "png;"),
        TEXT + ",\n\n",
        TEXT + ",,,\r\n" * 500,
        TEXT.replace("\n", ",,\n"),
        "\ufeff" + TEXT,
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
        (b"", "lacks the columns file; it has none"),
        (b"\n\n", "lacks the columns file; it has none"),
        (b"file,patient\n", "no rows below its header"),
        (b"file,patient\n,\n\n", "no rows below its header"),
        (b" File ,file\n1,2\n", "several columns file"),
        (b"patient\n1\n", "lacks the columns file; it has patient"),
        (b"file,file\n1,2\n", "several columns file"),
        (b"file,a\nx.png,1,2\n", "line 2 has more cells than columns"),
        (b'file,a\n"x.png,1\n', "line 2: "),
        ("file\nx.png\nä.png\n".encode("cp1252"), "byte 11 in line 3 is not UTF-8"),
        (b"\xff\xfef\0i\0", "lacks the columns file; it has fi"),
        (b"\xff\xfef\0i", "is not UTF-16"),
        (b"PK\x03\x04file\0", r"no table of text \(byte 8 is NUL\)"),
        (b"file\nx.png\n\0.png\n", r"no table of text \(byte 11 is NUL\)"),
    ],
)
def test_what_is_no_such_table_is_an_error_that_says_why(tmp_path, raw, wrong):
    file = tmp_path / "t.csv"
    file.write_bytes(raw)
    with pytest.raises(DatasetError, match=wrong) as caught:
        read_table(file, ["file"])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("before", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n", "\n;;\n", "\r\n"])
def test_what_excel_puts_before_the_header_is_passed_over_and_lines_are_counted_on(
    tmp_path, before
):
    file = tmp_path / "t.csv"
    text = before + "file;patient\nä.png;7\n"
    file.write_text(text, encoding="utf-8", newline="")
    assert read_table(file, ["file", "patient"]) == [ROWS[0]._replace(line=2 + before.count("\n"))]


def test_the_delimiter_is_the_one_under_which_the_wanted_columns_are_found(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("file;patient;age,sex,ward,scanner\na.png;7;1,F,A,B\n", encoding="utf-8")
    assert read_table(file, ["file", "patient"])[0].cells["patient"] == "7"


def test_a_cell_may_have_lines_and_delimiters_in_it(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('file,note\na.png,"two\nlines, one cell"\nb.png,\n', encoding="utf-8")
    assert read_table(file, ["file"]) == [
        Row(3, {"file": "a.png", "note": "two\nlines, one cell"}),
        Row(4, {"file": "b.png", "note": ""}),
    ]
