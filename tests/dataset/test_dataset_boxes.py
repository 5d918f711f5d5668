from pathlib import Path

import pytest

from chestxray.dataset import Box, Sample, read_boxes, read_dataset
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


def test_the_radiologists_boxes_fit_their_sources(shared_data):
    others = shared_data / "others"
    samples = read_dataset([others / "nih", others / "rsna_lungs"], LABELS)
    boxes = read_boxes(others / "boxes.csv", samples)
    positive = {s.path for s in samples if s.positive}
    assert len(positive & boxes.keys()) == 1505 + 66
    assert sum(map(len, boxes.values())) == 2613 + 119 + 1
