"""The queue loses nothing, keeps nothing too long, and belongs to one node."""

import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chestxray.errors import NodeError
from chestxray.pacs.spool import DATABASE_FILE, FILES_FOLDER, MAX_CRASHES, Spool, open_spool
from factories.servers import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        yield spool


def files(folder: Path) -> list[Path]:
    return sorted((folder / FILES_FOLDER).iterdir())


def tally(folder: Path) -> dict[tuple[str, str], int]:
    database = sqlite3.connect(folder / DATABASE_FILE)
    rows = database.execute("SELECT outcome, reason, n FROM tally").fetchall()
    database.close()
    return {(outcome, reason): n for outcome, reason, n in rows}


def add_and_judge(spool: Spool) -> int:
    number = spool.add([b"data"], "SENDER")
    assert spool.claim("judge")
    spool.judged(number, "judge", "archive", [[b"overlay"], [b"report"]])
    return number


def test_an_instance_goes_from_arrival_to_answer_and_leaves_only_a_tally(
    spool: Spool, folder: Path
) -> None:
    number = spool.add([b"head", memoryview(b"body")], "SENDER")
    waiting = spool.claim("judge")
    assert waiting is not None
    assert (waiting.number, waiting.calling_ae) == (number, "SENDER")
    assert waiting.file.read_bytes() == b"headbody"
    answer = [b"file %d" % position for position in range(12)]
    spool.judged(number, "judge", "archive", [[data] for data in answer])
    (judged,) = spool.to_send("archive", 10)
    assert [file.read_bytes() for file in judged.files] == answer
    spool.answered(number, "archive")
    assert spool.to_send("archive", 10) == []
    assert files(folder) == []
    assert tally(folder) == {("received", ""): 1, ("answered", "archive"): 1}


def test_a_refusal_is_counted_by_its_reason(spool: Spool, folder: Path) -> None:
    number = spool.add([b"data"], "SENDER")
    spool.claim("judge")
    spool.refused(number, "judge", "wrong_view")
    assert files(folder) == []
    assert tally(folder) == {("received", ""): 1, ("refused", "wrong_view"): 1}


def test_the_oldest_is_judged_first_and_by_one_judge(spool: Spool) -> None:
    first, second = (spool.add([b"data"], "SENDER") for _ in range(2))
    claimed = [spool.claim("a"), spool.claim("b"), spool.claim("c")]
    assert [waiting and waiting.number for waiting in claimed] == [first, second, None]


def test_a_judge_that_asks_again_gets_what_it_has(spool: Spool) -> None:
    number = spool.add([b"data"], "SENDER")
    for _ in range(2):
        waiting = spool.claim("judge")
        assert waiting is not None
        assert waiting.number == number


def test_files_and_folders_are_the_users_alone(spool: Spool, folder: Path) -> None:
    add_and_judge(spool)
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_others_can_read_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(NodeError, match="open to others"), open_spool(folder, [], keep_s=0):
        pass


def test_a_second_node_in_the_folder_is_refused(spool: Spool, folder: Path) -> None:
    with pytest.raises(NodeError, match="another node"), open_spool(folder, [], keep_s=0):
        pass


def test_a_folder_of_another_version_is_refused(folder: Path) -> None:
    with open_spool(folder, [], keep_s=0):
        pass
    database = sqlite3.connect(folder / DATABASE_FILE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(NodeError, match="another version"), open_spool(folder, [], keep_s=0):
        pass


def test_a_database_that_is_none_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / DATABASE_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(NodeError, match="database"), open_spool(folder, [], keep_s=0):
        pass


def test_what_was_in_work_waits_again_at_the_next_start(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        in_work = spool.add([b"data"], "SENDER")
        spool.claim("judge")
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        waiting = spool.claim("another")
        assert waiting is not None
        assert waiting.number == in_work


def test_what_is_judged_stays_so_and_is_due_at_the_next_start(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        number = add_and_judge(spool)
        spool.failed(number, "status_0xA700", 200)
        assert spool.to_send("archive", 10) == []
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        (judged,) = spool.to_send("archive", 10)
        assert (judged.number, judged.attempts) == (number, 1)


def test_what_is_judged_for_a_destination_that_is_gone_is_judged_again(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        number = add_and_judge(spool)
    with open_spool(folder, ["new archive"], keep_s=0) as spool:
        waiting = spool.claim("judge")
        assert waiting is not None
        assert waiting.number == number
        assert files(folder) == [waiting.file]


def test_files_of_nobody_are_deleted_at_the_next_start(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        add_and_judge(spool)
        mine = files(folder)
        for name in ("0123.part", "4567", "89ab.1"):
            (folder / FILES_FOLDER / name).write_bytes(b"half")
    with open_spool(folder, ["archive"], keep_s=0):
        assert files(folder) == mine


def test_who_outlives_its_node_moves_nothing_any_more(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0) as old:
        number = old.add([b"data"], "SENDER")
        old.claim("old judge")
        outliving = Spool(folder)
    with open_spool(folder, ["archive"], keep_s=0) as spool:
        spool.claim("new judge")
        outliving.refused(number, "old judge", "wrong_view")
        outliving.judged(number, "old judge", "archive", [[b"o"], [b"r"]])
        outliving.close()
        assert spool.to_send("archive", 10) == []
        assert len(files(folder)) == 1
        spool.judged(number, "new judge", "archive", [[b"o"], [b"r"]])
        assert len(spool.to_send("archive", 10)) == 1
    assert tally(folder) == {("received", ""): 1}


def test_an_answer_is_counted_once_even_if_two_say_so(spool: Spool, folder: Path) -> None:
    number = add_and_judge(spool)
    spool.answered(number, "archive")
    spool.answered(number, "archive")
    assert tally(folder)["answered", "archive"] == 1


def test_an_instance_that_kills_its_judges_is_refused(spool: Spool, folder: Path) -> None:
    spool.add([b"data"], "SENDER")
    for attempt in range(MAX_CRASHES):
        assert spool.claim(f"judge {attempt}")
        spool.crashed(f"judge {attempt}")
    assert spool.claim("judge") is None
    assert tally(folder) == {("received", ""): 1, ("refused", "crashed"): 1}


def test_an_instance_that_is_refused_by_its_destination_waits_alone(spool: Spool) -> None:
    first, second = add_and_judge(spool), add_and_judge(spool)
    spool.failed(first, "status_0xA700", 60)
    assert [judged.number for judged in spool.to_send("archive", 10)] == [second]


@pytest.mark.parametrize("set_to", [0.0, 1e11])
def test_a_clock_that_is_set_delays_and_hurries_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, set_to: float
) -> None:
    now, later = add_and_judge(spool), add_and_judge(spool)
    spool.failed(now, "status_0xA700", 0)
    spool.failed(later, "status_0xA700", 1000)
    spool.add([b"data"], "SENDER")
    assert spool.claim("judge")
    monkeypatch.setattr("chestxray.pacs.spool.time.time", lambda: set_to)
    assert [judged.number for judged in spool.to_send("archive", 10)] == [now]
    assert not spool.stuck("judge", 60)
    wait_until(lambda: spool.stuck("judge", 0.01))


def test_an_answer_that_someone_deleted_is_made_again(spool: Spool) -> None:
    number = add_and_judge(spool)
    spool.answer_lost(number)
    assert spool.to_send("archive", 10) == []
    assert spool.claim("judge")


def test_received_files_are_kept_as_long_as_is_set(folder: Path) -> None:
    with open_spool(folder, ["archive"], keep_s=0.2) as spool:
        number = add_and_judge(spool)
        spool.answered(number, "archive")
        (kept,) = files(folder)
        assert kept.read_bytes() == b"data"
        spool.delete_expired()
        assert files(folder) == [kept]
        deadline = time.monotonic() + 10
        while files(folder) and time.monotonic() < deadline:
            spool.delete_expired()
        assert files(folder) == []
        assert tally(folder) == {("received", ""): 1, ("answered", "archive"): 1}


def test_what_cannot_be_written_is_not_taken_in(spool: Spool, folder: Path) -> None:
    (folder / FILES_FOLDER).rmdir()
    with pytest.raises(OSError, match="No such file"):
        spool.add([b"data"], "SENDER")
    assert tally(folder) == {}


def test_what_the_database_does_not_take_leaves_no_file(spool: Spool, folder: Path) -> None:
    database = sqlite3.connect(folder / DATABASE_FILE)
    database.execute("DROP TABLE instance")
    database.close()
    with pytest.raises(NodeError):
        spool.add([b"data"], "SENDER")
    assert files(folder) == []


def test_the_lock_ends_with_the_node(folder: Path) -> None:
    for _ in range(2):
        with open_spool(folder, [], keep_s=0):
            pass


def test_a_judge_is_stuck_that_has_had_an_instance_for_too_long(spool: Spool) -> None:
    spool.add([b"data"], "SENDER")
    assert not spool.stuck("judge", 0)
    assert spool.claim("judge")
    wait_until(lambda: spool.stuck("judge", 0.01))
    assert not spool.stuck("judge", 60)
    assert not spool.stuck("other judge", 0)
    spool.crashed("judge")
    assert not spool.stuck("judge", 0)
