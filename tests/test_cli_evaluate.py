"""``chestxray evaluate``: what it writes, what it refuses, and that it says so in one line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from chestxray.dataset import read_dataset, split_heldout
from chestxray.evaluation.metrics import FIGURES
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.command_line import Answer, chestxray
from factories.datasets import LABELS, write_dataset, write_files, write_labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("evaluate") / "children", 8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def evaluate(data, bundle):
    """Run ``evaluate`` in this process: OUT, more arguments → (exit code, stdout, stderr)."""

    def run(out: Path, *arguments: object, data: Path = data) -> Answer:
        return chestxray(
            *("evaluate", "--data", data, "--out", out, "--bundle", bundle), *arguments
        )

    return run


def report_in(out: Path) -> dict:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_evaluate_writes_figures_page_and_predictions(evaluate, tmp_path) -> None:
    code, out, err = evaluate(tmp_path / "new", "--prevalence", 0.1)
    assert (code, err) == (0, "")
    assert "auroc" in out
    assert "report.html" in out
    written = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert written == ["predictions.csv", "report.html", "report.json"]
    report = report_in(tmp_path / "new")
    assert (report["dataset"], report["split"], report["n"]) == ("children", "all", 16)
    assert report["prevalence"]["asked"] == 0.1
    assert set(report["shortcuts"]) == {"grey_statistics", "size_bytes", "n_folds"}
    assert "comparison" not in report
    assert report["evidence"]["boxes"] is report["evidence"]["lungs"] is None
    assert report["given_away"] == []  # one source, and no views


def test_evaluate_names_what_it_leaves_out(evaluate, tmp_path) -> None:
    folder = write_dataset(tmp_path / "around" / "set", 4)
    foreign = {"NORMAL/IM-9999-0001.png": b"no radiograph", "NORMAL/.DS_Store": b"", "notes": b""}
    write_files(folder, foreign)
    code, out, err = evaluate(tmp_path / "new", data=tmp_path / "around")
    assert code == 0
    assert "n = 8 of" in out
    unread = "IM-9999-0001.png: unsupported_format"
    told = (
        f"{tmp_path / 'around'} is taken to mean {folder}, the one data set below it",
        f"{folder}: hidden files and those of operating systems, passed over: 1 (NORMAL/.DS_Store)",
        f"files that cannot be read, left out: 1 (NORMAL/{unread})",
    )
    assert err.splitlines() == [f"chestxray: warning: {line}" for line in told]


def test_names_that_are_no_utf_8_stand_in_the_report_by_their_bytes(evaluate, tmp_path) -> None:
    folder = write_dataset(tmp_path / "set", 4)
    for truth in LABELS:
        file = min((folder / truth).iterdir())
        file.rename(file.with_name("R\udcf6ntgen.png"))
    code, _, err = evaluate(tmp_path / "new", data=folder)
    assert code == 0
    assert err.count("\n") == 1  # nobody knows whose these are
    rows = (tmp_path / "new" / "predictions.csv").read_text(encoding="utf-8")
    assert rows.count(r"R\udcf6ntgen.png") == 4  # as path and as subject


def test_evaluate_judges_several_folders_as_one_data_set(evaluate, tmp_path) -> None:
    adults = write_dataset(tmp_path / "adults", 4, first_seed=100)
    assert evaluate(tmp_path, "--data", adults)[0] == 0
    report = report_in(tmp_path)
    assert (report["dataset"], report["n"]) == ("children + adults", 24)
    rows = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {row.partition("/")[0] for row in rows} == {"children", "adults"}


def test_evaluate_judges_one_source_of_several(evaluate, tmp_path) -> None:
    adults = write_dataset(tmp_path / "adults", 4, first_seed=100)
    both = ("--data", adults, "--source")
    assert evaluate(tmp_path, *both, "adults")[0] == 0
    report = report_in(tmp_path)
    assert (report["dataset"], report["n"]) == ("adults", 8)
    code, _, err = evaluate(tmp_path / "none", *both, "nobody")
    assert (code, err.count("\n")) == (1, 1)
    assert "no radiograph is of the source nobody; there are: adults, children" in err


def test_evaluate_says_what_a_table_leaves_out_and_what_is_wrong_with_it(
    evaluate, tmp_path
) -> None:
    data = write_dataset(tmp_path / "data", 4)
    names = [file.relative_to(data).as_posix() for file in sorted(data.glob("*/*"))]
    rows = [{"file": name, "patient": name, "label": name.partition("/")[0]} for name in names]
    write_labels(data, [*rows[1:], rows[0] | {"label": ""}])
    code, _, err = evaluate(tmp_path / "new", data=data)
    assert (code, err) == (
        0,
        f"chestxray: warning: {data}: rows of labels.csv without a label, left out: 1\n",
    )
    write_labels(data, [*rows, rows[0] | {"file": "NORMAL/nowhere.png"}])
    code, out, err = evaluate(tmp_path / "none", data=data)
    assert (code, out) == (1, "")
    assert err.endswith("labels.csv: rows without a file: 1 (NORMAL/nowhere.png)\n")


def test_evaluate_compares_two_bundles(evaluate, tmp_path) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=1, name="other")
    assert evaluate(tmp_path, "--compare", other)[0] == 0
    comparison = report_in(tmp_path)["comparison"]
    assert comparison["name"] == "other"
    assert set(comparison["differences"]) == set(FIGURES)
    assert "Compared with other" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_bundle_of_another_finding_is_no_bundle_to_compare_with(evaluate, tmp_path) -> None:
    other = write_tiny_bundle(tmp_path / "other", name="other", finding=OTHER_FINDING)
    code, out, err = evaluate(tmp_path / "new", "--compare", other)
    assert (code, out) == (2, "")
    assert "the bundle other is of another finding: DRY/EFFUSION (SCT 60046008)" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_evaluate_judges_the_evidence_against_boxes_and_lungs(evaluate, data, tmp_path) -> None:
    files = [file.name for file in (data / "PNEUMONIA").iterdir()]
    boxes = tmp_path / "boxes.csv"
    rows = [f"PNEUMONIA/{name},opacity,8,8,24,32" for name in files]
    boxes.write_text("\n".join(["file,finding,x,y,w,h", *rows]), encoding="utf-8")
    lungs = tmp_path / "lungs.npz"
    names = [Path(name).stem for name in files]
    np.savez(lungs, name=names, bits=np.full((len(names), 224 * 224 // 8), 0x0F, np.uint8))
    code, out, err = evaluate(tmp_path / "new", "--boxes", boxes, "--lungs", lungs)
    assert (code, err) == (0, "")
    assert "8 with boxes: the evidence peaks in one in" in out
    report = report_in(tmp_path / "new")
    found = report["evidence"]
    assert (found["boxes"]["n"], found["boxes"]["findings"]) == (8, {"opacity": 8})
    assert found["boxes"]["chance"]["value"] == 24 * 32 / 64**2
    assert found["lungs"]["positive"]["area"]["value"] == 0.5
    assert found["deletion"]["n_with_lungs"] == 8
    assert "best fixed point" in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_boxes_beside_the_data_are_judged_without_being_asked_for(evaluate, tmp_path) -> None:
    few = write_dataset(tmp_path / "few", 2)
    name = next((few / "PNEUMONIA").iterdir()).name
    (few / "boxes.csv").write_text(f"file,x,y,w,h\n{name},0,0,64,64\n", encoding="utf-8")
    assert evaluate(tmp_path, data=few)[0] == 0
    assert report_in(tmp_path)["evidence"]["boxes"]["pointing"]["value"] == 1


def test_evaluate_writes_what_stress_did_beside_the_report(evaluate, tmp_path) -> None:
    few = write_dataset(tmp_path / "few", 2)
    assert evaluate(tmp_path, "--stress", data=few)[0] == 0
    stress = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert (stress["n"], stress["operating_point"]) == (4, "balanced")
    assert "stress" not in report_in(tmp_path)
    assert "Under stress" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_evaluate_scores_only_subjects_that_the_bundle_was_not_trained_on(
    evaluate, data, tmp_path
) -> None:
    split = split_heldout(read_dataset(data, LABELS), 0.4, seed=5)
    trained = {
        "config": {"heldout": 0.4, "seed": 5},
        "n_train": len(split.train),
        "n_heldout": len(split.heldout),
    }
    bundle = write_tiny_bundle(tmp_path / "bundle", training=trained)
    assert evaluate(tmp_path, "--heldout", "--bundle", bundle)[0] == 0
    report = report_in(tmp_path)
    assert (report["split"], report["n"]) == ("held-out subjects", len(split.heldout))
    rows = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [s.path for s in split.heldout]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--heldout",), "does not say on which split it was trained"),
        (("--prevalence", 1.5), "between 0 and 1"),
        (("--prevalence", 0), "between 0 and 1"),
    ],
)
def test_evaluate_refuses_in_one_line_and_writes_nothing(
    evaluate, tmp_path, arguments, said
) -> None:
    code, out, err = evaluate(tmp_path / "new", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("missing", "importer"),
    [("jinja2", "report"), ("sklearn.linear_model", "shortcuts"), ("matplotlib.figure", "plots")],
)
def test_a_missing_extra_is_said_in_one_line_before_anything_is_scored(
    evaluate, tmp_path, monkeypatch, missing, importer
) -> None:
    for module in ("report", "plots", "shortcuts", importer):
        monkeypatch.delitem(sys.modules, f"chestxray.evaluation.{module}", raising=False)
        monkeypatch.delattr(f"chestxray.evaluation.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    code, out, err = evaluate(tmp_path / "new")
    assert (code, out) == (2, "")
    assert missing in err
    assert "chestxray[evaluate]" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()
