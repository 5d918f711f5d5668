"""``chestxray score``: what it prints, to which stream, its exit codes, and what it leaves."""

import csv
import errno
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chestxray import cli
from chestxray.archive.scoring import Job
from chestxray.archive.work import open_work
from chestxray.assessment import Choices, read_bundles
from chestxray.inference import BUNDLED
from factories import dicom_files, images
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.command_line import Answer, chestxray
from factories.images import gif
from factories.requests import radiograph_png
from factories.servers import wait_until

COMMAND = [sys.executable, "-m", "chestxray", "score"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def score(bundle: Path):
    """Run ``score`` here with the tiny bundle: arguments → (exit code, stdout, stderr)."""

    def run(*arguments: object) -> Answer:
        told = arguments if "--bundle" in arguments else (*arguments, "--bundle", bundle)
        return chestxray("score", *told)

    return run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with two radiographs."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(radiograph_png(seed))
    return folder


def rows_of(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as lines:
        return {Path(row["path"]).name: row for row in csv.DictReader(lines)}


def test_all_well_is_exit_code_0_one_line_and_one_file(score, archive, tmp_path) -> None:
    out = tmp_path / "out.csv"
    code, said, err = score(archive, "--out", out)
    assert (code, err) == (0, "")
    assert said == f"{out}: 2 files, 2 judged, 0 refused, 0 unreadable\n"
    assert set(rows_of(out)) == {"0.png", "1.png"}
    assert {file.name for file in tmp_path.iterdir()} == {"archive", "out.csv"}


def test_what_systems_leave_behind_costs_no_row_and_no_exit_code(score, archive, tmp_path) -> None:
    out = tmp_path / "out.csv"
    for name in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (archive / name).write_bytes(b"\0\5\x16\7")
    code, said, err = score(archive, "--out", out)
    assert (code, err) == (0, "")
    first, second = said.splitlines()
    assert first == f"{out}: 2 files, 2 judged, 0 refused, 0 unreadable"
    assert second.startswith("left out besides: 4 files that operating systems leave behind")
    assert set(rows_of(out)) == {"0.png", "1.png"}


@pytest.mark.parametrize("case", ["10a_list_powershell.txt", "10c_kaggle_from_a_mac.zip"])
def test_what_windows_and_macs_send_is_judged(shared_inputs, score, tmp_path, case) -> None:
    out = tmp_path / "out.csv"
    code, _, err = score(shared_inputs / case, "--out", out, "--input-check", "warn")
    assert (code, err) == (0, "")
    ((_, row),) = rows_of(out).items()
    assert row["error_code"] == ""


def test_parquet_by_the_ending(score, archive, tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    code, _, err = score(archive, "--out", tmp_path / "out.parquet")
    assert (code, err) == (0, "")
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 2


def test_some_failed_is_exit_code_3(score, archive, tmp_path) -> None:
    (archive / "x.gif").write_bytes(gif())
    (archive / "small.png").write_bytes(radiograph_png(0, 16))
    code, said, err = score(archive, "--out", tmp_path / "out.csv")
    assert (code, err) == (3, "")
    assert said.endswith("4 files, 2 judged, 1 refused, 1 unreadable\n")
    rows = rows_of(tmp_path / "out.csv")
    assert {name: row["error_code"] for name, row in rows.items()} == {
        "0.png": "",
        "1.png": "",
        "x.gif": "unsupported_format",
        "small.png": "too_small",
    }


def test_none_judged_is_exit_code_1_with_its_rows(score, tmp_path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    code, said, _ = score(tmp_path / "x.zip", "--out", tmp_path / "out.csv")
    assert code == 1
    assert "1 files, 0 judged, 0 refused, 1 unreadable" in said
    assert rows_of(tmp_path / "out.csv")["x.zip"]["error_code"] == "damaged_file"


def test_options_decide_the_rows(score, archive, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)
    (archive / "noise.png").write_bytes(images.png(noise))
    codes = {}
    for check in ("refuse", "warn"):
        out = tmp_path / f"{check}.csv"
        options = ("--input-check", check, "--operating-point", "rule_in")
        codes[check], _, _ = score(archive, "--out", out, *options)
        row = rows_of(out)["noise.png"]
        assert (row["input_check"], row["operating_point"]) == ("refused", "rule_in")
        assert bool(row["label"]) == bool(row["probability"]) == (check == "warn")
        assert row["error_code"] == ("not_a_chest_radiograph" if check == "refuse" else "")
    assert codes == {"refuse": 3, "warn": 0}


def test_a_patient_of_another_age_is_refused_or_warned_of(score, archive, tmp_path) -> None:
    """The bundle knows patients of 1 to 5 years."""
    (archive / "adult.dcm").write_bytes(dicom_files.dicom(PatientAge="040Y"))
    codes = {}
    for population in ("refuse", "warn"):
        out = tmp_path / f"{population}.csv"
        codes[population], _, _ = score(archive, "--out", out, "--population", population)
        row = rows_of(out)["adult.dcm"]
        assert row["error_code"] == ("outside_population" if population == "refuse" else "")
        assert bool(row["label"]) == (population == "warn")
        assert ("only for patients aged 1 to 5 years" in row["warnings"]) == (population == "warn")
    assert codes == {"refuse": 3, "warn": 0}


def test_a_lateral_view_is_refused_or_warned_of(score, archive, tmp_path) -> None:
    (archive / "lateral.dcm").write_bytes(dicom_files.dicom(ViewPosition="LL"))
    codes = {}
    for acquisition in ("refuse", "warn"):
        out = tmp_path / f"{acquisition}.csv"
        codes[acquisition], _, _ = score(archive, "--out", out, "--acquisition", acquisition)
        row = rows_of(out)["lateral.dcm"]
        assert row["error_code"] == ("wrong_view" if acquisition == "refuse" else "")
        assert ("view" in row["warnings"]) == (acquisition == "warn")
    assert codes == {"refuse": 3, "warn": 0}


def test_several_bundles_give_each_file_a_row_by_each(score, archive, bundle, tmp_path) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=1, finding=OTHER_FINDING)
    out = tmp_path / "out.csv"
    code, said, err = score(archive, "--out", out, "--bundle", f"b={bundle}", "--bundle", other)
    assert (code, err) == (0, "")
    assert said.endswith("2 files, 2 judged, 0 refused, 0 unreadable\n")
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    paths = [row["path"] for row in rows]
    assert paths[::2] == paths[1::2]
    assert [row["model"] for row in rows] == ["b", "tiny", "b", "tiny"]
    assert {row["label"] for row in rows[::2]} <= {"NORMAL", "PNEUMONIA"}
    assert {row["label"] for row in rows[1::2]} <= {"DRY", "EFFUSION"}


def test_unset_the_shipped_bundle_judges(archive, tmp_path) -> None:
    out = tmp_path / "out.csv"
    assert chestxray("score", archive, "--out", out).code in {0, 1, 3}
    ((name, bundle),) = read_bundles([]).items()
    assert {(row["model"], row["bundle_sha256"]) for row in rows_of(out).values()} == {
        (name, bundle.sha256)
    }


WRONG: dict[str, tuple[list[object], str | None]] = {
    "no such path": (["no-such-folder", "--out", "out.csv"], "no-such-folder"),
    "no such glob match": (["archive/*.nothing", "--out", "out.csv"], None),
    "other ending": (["archive", "--out", "out.txt"], ".parquet"),
    "no out": (["archive"], "--out"),
    "out is a folder": (["archive", "--out", "archive"], None),
    "no such point": (["archive", "--out", "out.csv", "--operating-point", "x"], "balanced"),
    "no such check": (["archive", "--out", "out.csv", "--input-check", "x"], "warn"),
    "no such population": (["archive", "--out", "out.csv", "--population", "x"], "warn"),
    "no such acquisition": (["archive", "--out", "out.csv", "--acquisition", "x"], "warn"),
    "no bundle": (["archive", "--out", "out.csv", "--bundle", "none"], "bundle"),
    "two bundles of one name": (
        ["archive", "--out", "out.csv", "--bundle", BUNDLED, "--bundle", BUNDLED],
        "NAME=DIR",
    ),
    "no folder for out": (["archive", "--out", "none/out.csv"], "none"),
    "out below a file": (["archive", "--out", "archive/0.png/out.csv"], "0.png"),
}
FAILED = {"no such glob match", "no bundle", "no folder for out", "out below a file"}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_begun_is_one_line_and_leaves_nothing(
    case, score, archive, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, word = WRONG[case]
    code, out, err = score(*arguments)
    assert (code, out) == (1 if case in FAILED else 2, "")
    assert err.startswith("chestxray: ")
    assert err.count("\n") == 1
    assert word is None or word in err
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("changed", ["source", "point", "check", "bundle", "bundles"])
def test_another_command_with_the_same_out_is_refused_and_destroys_nothing(
    changed, score, archive, bundle, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("older")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("chestxray.archive.work.Work.make_whole", fail)
        code, _, err = score(archive, "--out", out)
    assert (code, err) == (1, "chestxray: [Errno 28] No space left on device\n")
    other: dict[str, list[object]] = {
        "source": [archive.parent / "archive" / "0.png"],
        "point": [archive, "--operating-point", "screening"],
        "check": [archive, "--input-check", "warn"],
        "bundle": [archive, "--bundle", write_tiny_bundle(tmp_path / "other", seed=1)],
        "bundles": [archive, "--bundle", bundle, "--bundle", f"again={bundle}"],
    }
    code, _, err = score(*other[changed], "--out", out)
    assert code == 2
    assert err.count("\n") == 1
    assert "out.csv.parts" in err
    assert out.read_text() == "older"
    code, _, err = score(archive, "--out", out)
    assert (code, err) == (0, "")
    assert set(rows_of(out)) == {"0.png", "1.png"}


def test_a_second_process_is_refused(archive, bundle, tmp_path) -> None:
    out = tmp_path / "out.csv"
    job = Job(read_bundles([(None, bundle)]), Choices())
    with open_work(str(archive), out, job):
        second = subprocess.run(
            [*COMMAND, archive, "--out", out, "--bundle", bundle],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (second.returncode, second.stdout) == (2, "")
    assert "another process" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(archive, bundle, tmp_path) -> None:
    for n in range(30):
        (archive / f"copy {n}.png").hardlink_to(archive / "0.png")
    out = tmp_path / "out.csv"
    command = [*COMMAND, archive, "--out", out, "--bundle", bundle]
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert (full.returncode, full.stdout) == (1, "")
    assert re.fullmatch(r"chestxray: .*File too large\n", full.stderr)
    assert not out.exists()
    later = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (later.returncode, later.stderr) == (0, "")
    assert len(rows_of(out)) == 32


def test_progress_in_a_pipe_is_a_line_now_and_then(score, archive, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cli, "SAY_EVERY_S", 0)
    (archive / "x.gif").write_bytes(gif())
    (archive / "small.png").write_bytes(radiograph_png(0, 16))
    code, out, err = score(archive, "--out", tmp_path / "out.csv")
    assert code == 3
    assert out.count("\n") == 1
    lines = err.splitlines()
    for n, line in enumerate(lines):
        assert re.fullmatch(
            rf"chestxray: {n} of 4 files, [\d,.]+/s, (\?|\d+:\d\d:\d\d) left, "
            r"\d refused, \d unreadable",
            line,
        )
    assert len(lines) == 5
    assert lines[0].startswith("chestxray: 0 of 4 files, 0.0/s, ? left")
    assert lines[-1].endswith("0:00:00 left, 1 refused, 1 unreadable")


def test_on_a_terminal_there_is_a_bar(archive, bundle, tmp_path) -> None:
    for n in range(60):
        (archive / f"copy {n}.png").hardlink_to(archive / "0.png")
    (archive / "x.gif").write_bytes(gif())
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, archive, "--out", tmp_path / "out.csv", "--bundle", bundle],
        stdout=subprocess.PIPE,
        stderr=follower,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(follower)
        shown = b""
        try:
            while more := os.read(leader, 4096):
                shown += more
        except OSError:  # the other end has closed
            pass
        os.close(leader)
        assert process.stdout is not None
        said = process.stdout.read().decode()
        assert process.wait() == 3
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "━" in text
    assert re.search(r"[\d,]+ of 63 files, [\d,.]+/s, \S+ left, \d refused, \d unreadable", text)
    assert said.endswith("63 files, 62 judged, 0 refused, 1 unreadable\n")
    assert "\x1b" not in said


def test_ctrl_c_is_told_and_the_same_command_goes_on(score, archive, bundle, tmp_path) -> None:
    for n in range(1_000):
        (archive / f"copy {n}.png").hardlink_to(archive / "0.png")
    out = tmp_path / "out.csv"
    with subprocess.Popen(
        [*COMMAND, archive, "--out", out, "--bundle", bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until((tmp_path / "out.csv.parts" / "00000000.csv").exists)
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
    assert (said, process.returncode) == ("", 130)
    assert complaints.splitlines()[-1] == "chestxray: interrupted"
    assert "Traceback" not in complaints
    assert not out.exists()
    assert score(archive, "--out", out)[0] == 0
    assert len(rows_of(out)) == 1_002


def test_a_zip_is_judged_as_its_folder_is(score, archive, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        for file in archive.iterdir():
            zipped.write(file, file.name)
    for source in (archive, tmp_path / "x.zip"):
        code, _, _ = score(source, "--out", tmp_path / f"{source.name}.csv")
        assert code == 0
    rows, same = rows_of(tmp_path / "archive.csv"), rows_of(tmp_path / "x.zip.csv")
    for name, row in rows.items():
        assert row | {"path": ""} == same[name] | {"path": ""}
