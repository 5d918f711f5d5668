from pathlib import Path

import pytest

from chestxray.dataset import Box, Sample, find_boxes, read_boxes, read_dataset
from chestxray.errors import DatasetError
from factories.datasets import LABELS, write_files

BOX = Box(1, 2.5, 3, 4, "opacity")


def folder_of(folder: Path) -> Path:
    files = ("NORMAL/n.png", "PNEUMONIA/p.png", "OTHER/o.png")
    return write_files(folder, {path: f"{folder.name}/{path}".encode() for path in files})


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return read_dataset(folder_of(tmp_path / "here"), LABELS)


def table(tmp_path: Path, *rows: str, header: str = "source,file,finding,x,y,w,h") -> Path:
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return file


def test_boxes_are_listed_by_sample(tmp_path, samples):
    file = table(
        tmp_path,
        "here,PNEUMONIA/p.png,opacity,1,2.5,3,4",
        "here,PNEUMONIA/p.png,,5,6,7,8",
    )
    assert read_boxes(file, samples) == {"PNEUMONIA/p.png": [BOX, Box(5, 6, 7, 8, "")]}


def test_a_table_may_leave_out_source_and_finding(tmp_path, samples):
    file = table(tmp_path, "p.png;1;2,5;3;4", header="file;x;y;w;h")
    assert read_boxes(file, samples) == {"PNEUMONIA/p.png": [Box(1, 2.5, 3, 4, "")]}


def test_the_source_tells_files_of_one_name_apart(tmp_path):
    samples = read_dataset([folder_of(tmp_path / name) for name in ("here", "there")], LABELS)
    file = table(tmp_path, "there,PNEUMONIA/p.png,opacity,1,2.5,3,4")
    assert read_boxes(file, samples) == {"there/PNEUMONIA/p.png": [BOX]}
    file = table(tmp_path, ",PNEUMONIA/p.png,opacity,1,2.5,3,4")
    with pytest.raises(DatasetError, match=r"may mean several files: 1 \(PNEUMONIA/p\.png\)"):
        read_boxes(file, samples)


def test_rows_of_other_sources_and_of_files_that_are_no_samples_are_passed_over(tmp_path, samples):
    file = table(
        tmp_path,
        "there,PNEUMONIA/q.png,opacity,1,2,3,4",
        "here,OTHER/o.png,opacity,1,2,3,4",
        "here,PNEUMONIA/p.png,opacity,1,2.5,3,4",
    )
    assert read_boxes(file, samples) == {"PNEUMONIA/p.png": [BOX]}
    with pytest.raises(DatasetError, match="no box"):
        read_boxes(file, [s for s in samples if not s.positive])


def test_a_row_without_numbers_is_a_file_without_a_box(tmp_path, samples):
    file = table(tmp_path, "here,NORMAL/n.png,,,,,", "here,PNEUMONIA/p.png,opacity,1,2.5,3,4")
    assert read_boxes(file, samples) == {"PNEUMONIA/p.png": [BOX]}


def test_files_that_are_nowhere_are_counted_and_named(tmp_path, samples):
    rows = [f"here,PNEUMONIA/{i}.png,opacity,1,2,3,4" for i in range(4)]
    file = table(tmp_path, *rows, "here,PNEUMONIA/p.png,opacity,1,2,3,4", "here,,,1,2,3,4")
    with pytest.raises(DatasetError, match=r"rows without a file: 5 \(PNEUMONIA/0\.png, .*, …\)"):
        read_boxes(file, samples)


@pytest.mark.parametrize("box", ["1,2,3,", "1,2,0,4", "-1,2,3,4", "1,2,3,nought", "1,2,3,inf"])
def test_a_box_that_is_none_is_an_error_that_names_its_line(tmp_path, samples, box):
    file = table(tmp_path, f"here,PNEUMONIA/p.png,opacity,{box}")
    with pytest.raises(DatasetError, match=r"no box: 1 \(line 2, PNEUMONIA/p\.png\)"):
        read_boxes(file, samples)


def test_a_table_without_a_box_for_the_data_is_an_error(tmp_path, samples):
    with pytest.raises(DatasetError, match="no box for any radiograph"):
        read_boxes(table(tmp_path, "there,PNEUMONIA/p.png,opacity,1,2,3,4"), samples)


def test_boxes_are_found_beside_the_data_unless_a_file_is_named(tmp_path):
    header, row = "file,x,y,w,h", "PNEUMONIA/a.png,1,2,3,4"
    folders = [
        write_files(tmp_path / name, {f"{t}/a.png": f"{name}{t}".encode() for t in LABELS})
        for name in ("one", "two")
    ]
    samples = read_dataset(folders, LABELS)
    assert find_boxes(folders, samples) is None
    for folder in folders:
        (folder / "boxes.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    found = find_boxes(folders, samples)
    assert found == {f"{name}/PNEUMONIA/a.png": [Box(1, 2, 3, 4, "")] for name in ("one", "two")}
    named = tmp_path / "named.csv"
    named.write_text(f"{header}\none/PNEUMONIA/a.png,5,6,7,8\n", encoding="utf-8")
    assert find_boxes(folders, samples, named) == {"one/PNEUMONIA/a.png": [Box(5, 6, 7, 8, "")]}
    named.write_text(f"{header}\nelsewhere.png,5,6,7,8\n", encoding="utf-8")
    with pytest.raises(DatasetError):
        find_boxes(folders, samples, named)


@pytest.mark.parametrize("place", ["Boxes.CSV", "PNEUMONIA/boxes.csv"])
def test_boxes_are_found_whatever_their_capitals_and_on_the_way_to_the_data(tmp_path, place):
    folder = folder_of(tmp_path / "around" / "here")
    rows = "file,x,y,w,h\nPNEUMONIA\\p.png,1,2,3,4\n"
    write_files(folder, {place: rows.encode("utf-16")})
    samples = read_dataset(tmp_path / "around", LABELS)
    assert find_boxes([tmp_path / "around"], samples) == {"PNEUMONIA/p.png": [Box(1, 2, 3, 4, "")]}


def test_boxes_in_another_kind_of_file_are_an_error(tmp_path):
    folder = write_files(folder_of(tmp_path / "here"), {"boxes.xlsx": b"PK"})
    with pytest.raises(DatasetError, match=r"has boxes\.xlsx: boxes want a boxes\.csv"):
        find_boxes([folder], read_dataset(folder, LABELS))


def test_the_radiologists_boxes_fit_their_sources(shared_data):
    others = shared_data / "others"
    samples = read_dataset([others / "nih", others / "rsna_lungs"], LABELS)
    boxes = read_boxes(others / "boxes.csv", samples)
    positive = {s.path for s in samples if s.positive}
    assert len(positive & boxes.keys()) == 1505 + 66
    assert sum(map(len, boxes.values())) == 2613 + 119 + 1
