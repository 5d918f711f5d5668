"""The status counts everything, beside a running node or without one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chestxray.cli_pacs import pacs
from chestxray.errors import NodeError
from chestxray.pacs.spool import Spool, open_spool
from chestxray.pacs.status import read_status
from factories.pacs import config_of, facts, write_config


def fill(spool: Spool) -> None:
    """One answered, two refused, one failing, one to be sent, one in work, one waiting."""
    for number in range(7):
        row = spool.add([b"data"], "SENDER")
        if number == 6:
            return
        assert spool.claim("judge" if number < 5 else "other judge")
        if number in (1, 2):
            spool.refused(row, "judge", "wrong_view")
        elif number < 5:
            spool.judged(row, "judge", "archive", [[b"o"], [b"r"]])
        if number == 0:
            spool.answered(row, "archive")
        if number == 3:
            spool.failed(row, "status_0xA700", 60)


def check(status: Any) -> None:
    assert status["received"] == 7
    assert status["answered"] == 1
    assert status["refused"] == {"wrong_view": 2}
    assert status["waiting"] == 4
    assert status["oldest_waiting_s"] >= 0
    assert status["to_judge"] == 2
    archive = status["destinations"]["archive"]
    assert (archive["answered"], archive["waiting"]) == (1, 2)
    assert archive["failing"] == {"status_0xA700": 1}


def test_everything_is_counted_while_the_node_runs_and_when_it_is_down(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        fill(spool)
        check(read_status(config).model_dump())
    check(read_status(config).model_dump())


def test_a_destination_that_cannot_be_reached_fails_as_a_whole(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        fill(spool)
        spool.destination_failed("archive", "unreachable")
        assert read_status(config).destinations["archive"].failing == {"unreachable": 2}
        spool.destination_recovered("archive")
        assert read_status(config).destinations["archive"].failing == {"status_0xA700": 1}


def test_what_is_kept_is_counted(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with open_spool(config.node.folder, ["archive"], keep_s=60) as spool:
        fill(spool)
        status = read_status(config)
        assert (status.kept, status.waiting, status.answered) == (3, 4, 1)


def test_without_a_node_there_is_no_status(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no node has worked"):
        read_status(config_of(tmp_path))


def test_reading_the_status_changes_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with open_spool(config.node.folder, ["archive"], keep_s=0) as spool:
        fill(spool)
    before = {path: path.read_bytes() for path in config.node.folder.rglob("*") if path.is_file()}
    read_status(config)
    after = {path: path.read_bytes() for path in config.node.folder.rglob("*") if path.is_file()}
    assert {path.name for path in before} == {path.name for path in after} - {
        "queue.sqlite-shm",
        "queue.sqlite-wal",
    }
    assert all(after[path] == data for path, data in before.items())


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    file = write_config(tmp_path, facts(tmp_path))
    with open_spool(tmp_path / "node", ["archive"], keep_s=0) as spool:
        fill(spool)
    told = CliRunner().invoke(pacs, ["status", str(file), "--json"])
    assert told.exit_code == 0
    check(json.loads(told.stdout))
    told = CliRunner().invoke(pacs, ["status", str(file)])
    assert told.exit_code == 0
    assert re.search(r"refused +2 +2 wrong_view", told.stdout)
    assert re.search(r"archive +1 +2 +oldest \d+ s +1 status_0xA700", told.stdout)
