"""Rows in CSV and in Parquet say the same."""

import csv
import sys
from pathlib import Path

import pytest

from chestxray.archive.rows import (
    CSV_ENCODING,
    Row,
    csv_to_parquet,
    header,
    outcome,
    read_csv,
    write_csv,
)

EMPTY = Row("p", None, None, None, "balanced", None, None, None, None, None, "tiny", "f" * 64)
NUMBERS = [0.0, 1.0, 0.1 + 0.2, 1 / 3, 5e-324, sys.float_info.min, 1 - 2**-53, 1e-7, 0.5]
NAMES = [
    "plain",
    " spaces ",
    "new\nline",
    "carriage\rreturn",
    "both\r\n",
    'quo"te',
    "com,ma",
    "semi;colon",
    "\ufeffbom",
    "ä 肺 🫁",
    "null",
    "NaN",
    "true",
    "1",
    "=1+1",
    "'=1+1",
    "''-x",
    "'plain",
    "'",
    "\t=x",
    "\\",
    "x" * 90_000,
]
ROWS = [
    EMPTY,
    *(EMPTY._replace(path=name) for name in NAMES),
    *(
        EMPTY._replace(label="NORMAL", probability=p, input_check_score=p, uncertain=p > 0.3)
        for p in NUMBERS
    ),
    EMPTY._replace(error_code="damaged_file", warnings="one; two", input_check="accepted"),
]


def written(rows: list[Row], file: Path) -> Path:
    with file.open("w", **CSV_ENCODING) as stream:
        write_csv(rows, stream)
    return file


def parquet_rows(file: Path) -> list[Row]:
    parquet = pytest.importorskip("pyarrow.parquet")
    return [Row(**row) for row in parquet.read_table(file).to_pylist()]


def test_csv_gives_back_what_was_written(tmp_path) -> None:
    assert list(read_csv(written(ROWS, tmp_path / "part.csv"))) == ROWS


@pytest.mark.parametrize("sign", list("=+-@\t\r"))
def test_a_name_is_no_formula_in_csv_and_as_it_is_in_parquet(sign: str, tmp_path) -> None:
    name = f"{sign}cmd|' /C calc'!A0"
    part = written([EMPTY._replace(path=name)], tmp_path / "part.csv")
    with part.open(**CSV_ENCODING) as lines:
        ((cell, *_),) = csv.reader(lines)
    assert cell == f"'{name}"
    csv_to_parquet([part], tmp_path / "out.parquet")
    assert [row.path for row in parquet_rows(tmp_path / "out.parquet")] == [name]


@pytest.mark.parametrize("first", range(len(ROWS)))
def test_any_row_may_be_the_first_of_a_part(first, tmp_path) -> None:
    assert list(read_csv(written(ROWS[first:], tmp_path / "part.csv"))) == ROWS[first:]


def test_parquet_gives_the_rows_with_their_types_and_a_row_group_for_each_part(tmp_path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    halves = (ROWS[:10], ROWS[10:], [ROWS[9]])
    parts = [written(rows, tmp_path / f"{n}.csv") for n, rows in enumerate(halves)]
    csv_to_parquet(parts, tmp_path / "out.parquet")
    assert parquet_rows(tmp_path / "out.parquet") == [*ROWS, ROWS[9]]
    file = parquet.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups == 3
    types = {field.name: field.type for field in file.schema_arrow}
    assert list(types) == list(Row._fields)
    assert types.pop("probability") == types.pop("input_check_score") == pa.float64()
    assert types.pop("uncertain") == pa.bool_()
    assert set(types.values()) == {pa.string()}
    file.close()


def test_a_part_in_which_nothing_is_known_has_the_same_columns(tmp_path) -> None:
    csv_to_parquet([written([EMPTY], tmp_path / "0.csv")], tmp_path / "out.parquet")
    assert parquet_rows(tmp_path / "out.parquet") == [EMPTY]


def test_a_name_that_is_no_utf_8_keeps_its_bytes_as_text_in_both(tmp_path) -> None:
    part = written([EMPTY._replace(path="\udcff\udc80.png")], tmp_path / "0.csv")
    csv_to_parquet([part], tmp_path / "out.parquet")
    assert [row.path for row in read_csv(part)] == ["\\udcff\\udc80.png"]
    assert parquet_rows(tmp_path / "out.parquet") == list(read_csv(part))


def test_a_file_ends_answered_if_any_bundle_answered_it_else_with_its_first_error() -> None:
    refused = EMPTY._replace(error_code="outside_population")
    unlike = EMPTY._replace(error_code="not_a_chest_radiograph")
    assert outcome([EMPTY, EMPTY]) == ""
    assert outcome([EMPTY, refused]) == outcome([refused, EMPTY]) == ""
    assert outcome([refused, unlike]) == "outside_population"
    assert outcome([unlike, refused]) == "not_a_chest_radiograph"


def test_other_readers_of_csv_find_header_and_truth_values(tmp_path) -> None:
    part = written(ROWS, tmp_path / "part.csv")
    text = header().encode() + part.read_bytes()
    rows = list(csv.DictReader(text.decode().splitlines(keepends=True)))
    assert len(rows) == len(ROWS)
    for found, row in zip(rows, ROWS, strict=True):
        assert found["path"] in {row.path, f"'{row.path}"}  # a formula is kept from being one
    assert {row["uncertain"] for row in rows} == {"", "true", "false"}
    assert [float(row["probability"]) for row in rows if row["probability"]] == NUMBERS
