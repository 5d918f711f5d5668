"""The programs behind docs/reliability.md count right: what they find, they must not overlook."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import faults  # noqa: E402
import fuzzing  # noqa: E402
import questions  # noqa: E402
import reliability  # noqa: E402
import reliability_page  # noqa: E402
import slow_clients  # noqa: E402
import soak  # noqa: E402

from factories.exchanges import Answer  # noqa: E402
from factories.mutations import Mutant, image_mutant  # noqa: E402
from factories.pacs import free_port  # noqa: E402


@pytest.mark.parametrize("n", [100_000, 4000, 7, 1])
def test_a_run_of_mutants_has_every_index_once_and_every_stage_its_share(n: int) -> None:
    batches = fuzzing.planned(n)
    assert all(one.first + one.size == other.first for one, other in pairwise(batches))
    assert (batches[0].first, batches[-1].first + batches[-1].size) == (0, n)
    for stage in fuzzing.STAGES:
        size = sum(batch.size for batch in batches if batch.stage == stage.name)
        assert size == pytest.approx(n * stage.share, abs=3)


def crashing(seed: int, index: int) -> Mutant:
    """Mutants of which the fourth ends the process that reads them."""
    if index == 3:
        os.abort()
    return image_mutant(seed, index)


def test_a_crash_while_reading_is_found_and_costs_one_mutant() -> None:
    stage = fuzzing.Stage("images", 1, crashing)
    (batch,) = fuzzing._read_in_process(stage, [fuzzing.Batch("images", 0, 6)], 1, 0)
    assert [(index, "ended with -6" in error) for index, error in batch.failures] == [(3, True)]
    assert sum(batch.outcomes.values()) == 5  # all others
    assert batch.memory_mb > 10


def test_what_does_not_hold_is_a_failure_with_its_index() -> None:
    batch = fuzzing.Batch("images", 0, 3)

    def outcomes_of(mutant: Mutant) -> list[str]:
        assert mutant is not made[1], "the second is wrong"
        return ["right"]

    made = [image_mutant(1, index) for index in range(3)]
    fuzzing._judge(batch, range(3), made.__getitem__, outcomes_of)
    assert batch.outcomes == {"right": 2, "failed": 1}
    assert [(index, "the second is wrong" in error) for index, error in batch.failures] == [
        (1, True)
    ]


def test_only_what_breaks_right_after_a_kill_is_put_down_to_it() -> None:
    tally = faults.Tally(kills=[(9.98, 10.0)])
    tally.broken = [
        (9.0, 10.2, "in flight when it was killed"),
        (9.0, 9.9, "before"),
        (9.0, 11.5, "long after"),
        (10.1, 10.3, "begun after"),
    ]
    assert tally.broken_elsewhere() == ["before", "long after", "begun after"]


def test_an_answer_is_right_only_if_it_is_the_known_one_but_for_its_request_id() -> None:
    body = b'{"code":"overloaded","request_id":"%b"}'
    question = questions.Question("bad", b"", status=400, body=body % b"")
    assert question.is_answered_by(Answer(400, {}, body % b"0123abcd"))
    assert not question.is_answered_by(Answer(200, {}, body % b"0123abcd"))
    assert not question.is_answered_by(Answer(400, {}, b'{"code":"other","request_id":"0"}'))


def test_memory_grows_from_after_the_warm_up_to_the_end() -> None:
    samples = [(float(second), 100 * second, {7: 100.0 + second}) for second in range(101)]
    # Warm after 10 s; the mean of seconds 10 to 25 is 17.5, that of 85 to 100 is 92.5.
    assert soak.growth(samples, 7, warm_up=1000) == pytest.approx(75)


def test_a_section_of_the_report_replaces_only_itself(tmp_path: Path) -> None:
    out = tmp_path / "reports" / "report.json"
    reliability.write_section(out, "soak", {"n": 1}, took_s=1)
    reliability.write_section(out, "faults", {"n": 2}, took_s=1)
    reliability.write_section(out, "soak", {"n": 3}, took_s=1)
    report = json.loads(out.read_text(encoding="utf-8"))
    assert {name: section["n"] for name, section in report.items()} == {"soak": 3, "faults": 2}
    assert {"date", "commit", "command", "machine", "versions"} <= set(report["soak"])


def test_what_did_not_hold_stands_out_on_the_page() -> None:
    committed = REPOSITORY / "docs" / "reports" / "reliability.json"
    report = json.loads(committed.read_text(encoding="utf-8"))
    report["faults"]["statuses"]["500"] = 1
    report["soak"]["held"] = False
    lines = reliability_page.holds(report).splitlines()
    assert [line.endswith("| **no** |") for line in lines if "500 or more" in line] == [True]
    assert [line.endswith("| **no** |") for line in lines if "memory grows" in line] == [True]


def test_an_error_in_the_log_is_seen_and_a_killed_worker_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        json.dumps({"level": "INFO", "message": "POST /predict 200"}),
        json.dumps({"level": "ERROR", "message": "worker 7 ended with -9 and is replaced"}),
        json.dumps({"level": "ERROR", "message": "unexpected KeyError"}),
        "Traceback (most recent call last):",
    ]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    server = reliability.Server(process=None, port=0, log=log)  # type: ignore[arg-type]
    assert server.errors_logged() == lines[2:]


def test_a_crowd_is_held_against_the_time_before_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "N_SLOW", 5)
    monkeypatch.setattr(slow_clients, "N_ASKED", 10)
    crowds = {"slow readers and idle": slow_clients.slow_readers_and_idle}
    monkeypatch.setattr(slow_clients, "CROWDS", crowds)
    (found,) = slow_clients.measured(free_port()).values()
    assert (found["exit_code"], found["errors_logged"]) == (0, 0)
    assert found["p99_ms_beside"] > 0
    assert found["livez_slowest_s"] > 0
