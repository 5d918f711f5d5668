"""What Prometheus is told, by one process and by several that are killed with -9."""

import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chestxray.errors import ConfigError
from chestxray.service import metrics as metrics_module
from chestxray.service.metrics import (
    FOLDER_VARIABLE,
    PROCESS_INTERVAL_S,
    Metrics,
    Stage,
    forget_worker,
    metrics_folder,
)

Figures = dict[str, float]

PREDICTED = {
    "model": "tiny",
    "label": "PNEUMONIA",
    "operating_point": "balanced",
    "uncertain": False,
    "probability": 0.97,
    "input_check_score": 0.42,
}


def parsed(exposition: tuple[bytes, str]) -> Figures:
    """Every sample by its name and labels, written as Prometheus does, in the labels' order."""
    figures: Figures = {}
    for family in text_string_to_metric_families(exposition[0].decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            series = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert series not in figures, f"{series} stands twice"
            figures[series] = sample.value
    return figures


def use_everything(metrics: Metrics) -> None:
    for name in get_args(Stage):
        metrics.observe_stage(name, 0.01)
    metrics.request(route="/predict", status=200, key="", duration_s=0.02)
    metrics.predicted(**PREDICTED)
    metrics.refused("too_small")
    metrics.set_queue(waiting=1, in_flight=2, buffered_bytes=3)
    metrics.set_bundles([("tiny", "answers", "ab", "1")])
    metrics.reloaded(replaced=True)
    metrics.shadowed(
        shadow="new", operating_point="balanced", label="NORMAL", shadow_label="PNEUMONIA"
    )
    metrics.shadow_differed(shadow="new", difference=0.25)
    metrics.shadow_skipped()
    metrics.shadow_failed()


# --- one process ----------------------------------------------------------------------------------


def test_a_request_is_counted_by_route_status_and_key_and_timed_by_route() -> None:
    metrics = Metrics()
    metrics.request(route="/predict", status=200, key="ward-3", duration_s=0.015)
    metrics.request(route="/predict", status=200, key="ward-3", duration_s=0.025)
    metrics.request(route="/predict", status=429, key="", duration_s=0.5)
    figures = parsed(metrics.exposition())
    assert figures['chestxray_requests_total{key="ward-3",route="/predict",status="200"}'] == 2
    assert figures['chestxray_requests_total{key="",route="/predict",status="429"}'] == 1
    seconds = "chestxray_request_duration_seconds"
    assert figures[f'{seconds}_count{{route="/predict"}}'] == 3
    assert figures[f'{seconds}_sum{{route="/predict"}}'] == pytest.approx(0.54)
    assert figures[f'{seconds}_bucket{{le="0.01",route="/predict"}}'] == 0
    assert figures[f'{seconds}_bucket{{le="0.02",route="/predict"}}'] == 1
    assert figures[f'{seconds}_bucket{{le="+Inf",route="/predict"}}'] == 3


def test_a_stage_is_timed_also_when_it_fails() -> None:
    metrics = Metrics()
    with metrics.stage("infer"):
        pass
    with pytest.raises(ValueError, match="damaged"), metrics.stage("decode"):
        raise ValueError("damaged")
    metrics.observe_stage("wait", 3.0)
    figures = parsed(metrics.exposition())
    seconds = "chestxray_stage_duration_seconds"
    counts = {stage: figures[f'{seconds}_count{{stage="{stage}"}}'] for stage in get_args(Stage)}
    assert counts == {"receive": 0, "wait": 1, "open": 0, "decode": 1, "infer": 1, "render": 0}
    assert figures[f'{seconds}_sum{{stage="wait"}}'] == 3
    assert 0 < figures[f'{seconds}_sum{{stage="decode"}}'] < 1


def test_a_prediction_is_counted_and_its_scores_enter_the_histograms() -> None:
    metrics = Metrics()
    metrics.predicted(**PREDICTED)
    figures = parsed(metrics.exposition())
    labels = 'label="PNEUMONIA",model="tiny",operating_point="balanced",uncertain="false"'
    assert figures[f"chestxray_predictions_total{{{labels}}}"] == 1
    assert figures['chestxray_probability_bucket{le="0.95",model="tiny"}'] == 0
    assert figures['chestxray_probability_bucket{le="1.0",model="tiny"}'] == 1
    assert figures['chestxray_probability_sum{model="tiny"}'] == 0.97
    assert figures['chestxray_input_check_score_bucket{le="0.4"}'] == 0
    assert figures['chestxray_input_check_score_bucket{le="0.45"}'] == 1


def test_problems_are_counted_by_code_and_an_input_checks_refusal_keeps_its_score() -> None:
    metrics = Metrics()
    metrics.refused("too_small")
    metrics.refused("not_a_chest_radiograph", input_check_score=0.0)
    figures = parsed(metrics.exposition())
    assert figures['chestxray_problems_total{code="too_small"}'] == 1
    assert figures['chestxray_problems_total{code="not_a_chest_radiograph"}'] == 1
    assert figures["chestxray_input_check_score_count"] == 1
    assert not any(series.startswith("chestxray_probability") for series in figures)


def test_the_first_internal_error_is_an_increase() -> None:
    assert parsed(Metrics().exposition())['chestxray_problems_total{code="internal_error"}'] == 0


def test_the_queue_is_as_it_was_set_last() -> None:
    metrics = Metrics()
    metrics.set_queue(waiting=5, in_flight=7, buffered_bytes=1000)
    metrics.set_queue(waiting=0, in_flight=2, buffered_bytes=300)
    figures = parsed(metrics.exposition())
    assert figures["chestxray_queue_waiting"] == 0
    assert figures["chestxray_requests_in_flight"] == 2
    assert figures["chestxray_buffered_bytes"] == 300


def info(name: str, bundle_sha256: str, role: str = "answers") -> str:
    labels = f'bundle_sha256="{bundle_sha256}",name="{name}",role="{role}",version="1"'
    return f"chestxray_bundle_info{{{labels}}}"


def test_the_bundles_at_work_are_told_in_labels() -> None:
    metrics = Metrics()
    metrics.set_bundles([("tiny", "answers", "ab", "1"), ("new", "shadow", "cd", "1")])
    figures = parsed(metrics.exposition())
    assert figures[info("tiny", "ab")] == figures[info("new", "cd", "shadow")] == 1


def test_a_bundle_that_was_replaced_is_at_work_no_more() -> None:
    metrics = Metrics()
    metrics.set_bundles([("tiny", "answers", "ab", "1")])
    metrics.set_bundles([("tiny", "answers", "ef", "1")])
    figures = parsed(metrics.exposition())
    assert (figures[info("tiny", "ab")], figures[info("tiny", "ef")]) == (0, 1)


def test_replacements_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    reloads = "chestxray_bundle_reloads_total"
    assert parsed(metrics.exposition())[f'{reloads}{{outcome="failed"}}'] == 0
    metrics.reloaded(replaced=True)
    metrics.reloaded(replaced=False)
    figures = parsed(metrics.exposition())
    for outcome in ("replaced", "failed"):
        assert figures[f'{reloads}{{outcome="{outcome}"}}'] == 1


def test_what_a_shadow_says_is_counted_by_both_labels_and_by_the_difference() -> None:
    metrics = Metrics()
    metrics.shadowed(shadow="new", operating_point="balanced", label="A", shadow_label="B")
    metrics.shadow_differed(shadow="new", difference=-0.15)
    metrics.shadow_differed(shadow="new", difference=0.0)
    metrics.shadow_skipped()
    metrics.shadow_failed()
    figures = parsed(metrics.exposition())
    labels = 'label="A",operating_point="balanced",shadow="new",shadow_label="B"'
    assert figures[f"chestxray_shadow_assessments_total{{{labels}}}"] == 1
    differences = "chestxray_shadow_probability_difference"
    assert figures[f'{differences}_bucket{{le="-0.2",shadow="new"}}'] == 0
    assert figures[f'{differences}_bucket{{le="-0.1",shadow="new"}}'] == 1
    assert figures[f'{differences}_bucket{{le="-0.001",shadow="new"}}'] == 1
    assert figures[f'{differences}_bucket{{le="0.001",shadow="new"}}'] == 2
    assert figures["chestxray_shadow_skipped_total"] == 1
    assert figures["chestxray_shadow_failed_total"] == 1


def test_memory_and_processor_time_are_the_processs() -> None:
    figures = parsed(Metrics().exposition())
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (resident_kib,) = (line.split()[1] for line in status.splitlines() if "VmRSS" in line)
    assert figures["chestxray_resident_memory_bytes"] == pytest.approx(
        int(resident_kib) * 1024, rel=0.2
    )
    assert 0.01 < figures["chestxray_cpu_seconds_total"] <= time.process_time()
    assert figures["chestxray_worker_deaths_total"] == 0


def test_processor_time_follows_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = [100.0]
    monkeypatch.setattr(metrics_module.time, "monotonic", lambda: clock_s[0])
    used_s = [2.0]
    monkeypatch.setattr(metrics_module.time, "process_time", lambda: used_s[0])
    metrics = Metrics()
    used_s[0] = 2.5
    assert parsed(metrics.exposition())["chestxray_cpu_seconds_total"] == 2.0
    clock_s[0] += PROCESS_INTERVAL_S
    metrics.request(route="/predict", status=200, key="", duration_s=0.02)
    used_s[0] = 9.0
    assert parsed(metrics.exposition())["chestxray_cpu_seconds_total"] == 2.5


def test_two_in_one_process_count_each_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.refused("too_small")
    assert parsed(first.exposition())['chestxray_problems_total{code="too_small"}'] == 1
    assert 'chestxray_problems_total{code="too_small"}' not in parsed(second.exposition())


def test_threads_lose_no_count() -> None:
    metrics = Metrics()

    def work(_: int) -> None:
        for _ in range(500):
            with metrics.stage("infer"):
                metrics.predicted(**PREDICTED)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    figures = parsed(metrics.exposition())
    assert figures['chestxray_probability_count{model="tiny"}'] == 4000
    assert figures['chestxray_stage_duration_seconds_count{stage="infer"}'] == 4000


def test_names_and_help_follow_prometheus_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    metrics = Metrics()
    use_everything(metrics)
    body, content_type = metrics.exposition()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    lint = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b"")


# --- several processes ----------------------------------------------------------------------------


def _work(connection: Connection) -> None:
    """A worker: does with its ``Metrics`` what it is told to."""
    metrics = Metrics()
    connection.send("ready")
    while True:
        method, arguments = connection.recv()
        if method == "count_and_die":  # a child of its own, with files of its own
            child = os.fork()
            if child == 0:
                metrics.refused("too_small")
                metrics.set_queue(waiting=1, in_flight=1, buffered_bytes=1)
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(child, 0)
            connection.send(child)
        elif method == "use_everything":
            connection.send(use_everything(metrics))
        else:
            connection.send(getattr(metrics, method)(**arguments))


class Worker:
    """A process with its own ``Metrics``."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._connection.recv() == "ready"

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def __call__(self, method: str, **arguments: Any) -> Any:
        self._connection.send((method, arguments))
        return self._connection.recv()

    def figures(self) -> Figures:
        return parsed(self("exposition"))

    def kill(self) -> int:
        """End it with SIGKILL; its process id."""
        self._process.kill()
        self._process.join()
        self._connection.close()
        return self.pid


@contextmanager
def workers(number: int) -> Iterator[list[Worker]]:
    """So many processes in a shared folder; what is in the list at the end is killed."""
    with metrics_folder():
        running = [Worker() for _ in range(number)]
        try:
            yield running
        finally:
            for worker in running:
                worker.kill()


def shared_files() -> list[str]:
    return sorted(file.name for file in Path(os.environ[FOLDER_VARIABLE]).iterdir())


def test_every_worker_tells_the_sum_over_all() -> None:
    with workers(2) as (first, second):
        for worker in (first, second, second):
            worker("request", route="/predict", status=200, key="", duration_s=0.015)
            worker("observe_stage", name="infer", duration_s=0.01)
            worker("predicted", **PREDICTED)
            worker("refused", code="too_small")
        first("set_queue", waiting=1, in_flight=2, buffered_bytes=100)
        second("set_queue", waiting=0, in_flight=3, buffered_bytes=10)
        figures = first.figures()
        assert figures == second.figures()
        assert figures['chestxray_requests_total{key="",route="/predict",status="200"}'] == 3
        durations = 'chestxray_request_duration_seconds_bucket{le="0.015",route="/predict"}'
        assert figures[durations] == 3
        assert figures['chestxray_stage_duration_seconds_count{stage="infer"}'] == 3
        assert figures['chestxray_probability_count{model="tiny"}'] == 3
        assert figures['chestxray_problems_total{code="too_small"}'] == 3
        assert figures["chestxray_queue_waiting"] == 1
        assert figures["chestxray_requests_in_flight"] == 5
        assert figures["chestxray_buffered_bytes"] == 110
        assert figures["chestxray_worker_deaths_total"] == 0
        for worker in (first, second):
            memory = figures[f'chestxray_resident_memory_bytes{{pid="{worker.pid}"}}']
            assert memory > 1_000_000


def test_one_worker_of_several_exposes_what_one_process_alone_does() -> None:
    alone = Metrics()
    use_everything(alone)
    with workers(1) as (worker,):
        worker("use_everything")
        # A worker's memory has its process id, so that the largest can be seen.
        in_company = {series.replace(f'{{pid="{worker.pid}"}}', "") for series in worker.figures()}
    # Alone, the library leaves out the sum of what may be negative.
    in_company.discard('chestxray_shadow_probability_difference_sum{shadow="new"}')
    assert in_company == set(parsed(alone.exposition()))


def test_what_a_killed_worker_counted_stays_and_its_gauges_go() -> None:
    with workers(2) as running:
        survivor = running[0]
        for worker in running:
            worker("use_everything")
        before = survivor.figures()
        assert before["chestxray_requests_in_flight"] == 4
        dead = running.pop().kill()
        forget_worker(dead)
        after = survivor.figures()
        assert after["chestxray_requests_in_flight"] == 2
        assert after["chestxray_queue_waiting"] == 1
        assert after["chestxray_buffered_bytes"] == 3
        memory = f'chestxray_resident_memory_bytes{{pid="{dead}"}}'
        assert memory in before
        assert memory not in after
        changing = ("queue_", "requests_in_", "buffered_", "resident_", "worker_deaths_")
        changing = tuple(f"chestxray_{name}" for name in changing)
        counted = {series for series in before if not series.startswith(changing)}
        assert len(counted) > 100
        assert {s: after[s] for s in counted} == {s: before[s] for s in counted}
        assert after["chestxray_worker_deaths_total"] == 1
        running.append(Worker())
        assert running[1].figures()["chestxray_worker_deaths_total"] == 1


def test_while_workers_die_no_count_goes_back_and_files_do_not_pile_up() -> None:
    deaths = 60
    with workers(2) as (parent, survivor):
        survivor("refused", code="too_small")
        seen, over = [0.0], threading.Event()

        def watch() -> None:
            while not over.is_set():
                seen.append(survivor.figures()['chestxray_problems_total{code="too_small"}'])

        with ThreadPoolExecutor(1) as thread:
            watching = thread.submit(watch)
            try:
                for _ in range(deaths):
                    forget_worker(parent("count_and_die"))
            finally:
                over.set()
            watching.result()
        assert len(seen) > 5
        assert seen == sorted(seen)
        figures = survivor.figures()
        assert figures['chestxray_problems_total{code="too_small"}'] == deaths + 1
        assert figures["chestxray_worker_deaths_total"] == deaths
        assert figures["chestxray_requests_in_flight"] == 0
        kinds = ("counter", "histogram", "gauge_liveall", "gauge_livesum")
        living = [f"{kind}_{worker.pid}.db" for kind in kinds for worker in (parent, survivor)]
        assert shared_files() == sorted([*living, "counter_dead.db", "histogram_dead.db"])


def test_workers_that_answer_with_two_bundles_show_both_until_one_is_gone() -> None:
    with workers(2) as running:
        running[0]("set_bundles", bundles=[("one", "answers", "aa", "1")])
        running[1]("set_bundles", bundles=[("one", "answers", "bb", "1")])
        old, new = info("one", "aa"), info("one", "bb")
        figures = running[1].figures()
        assert figures[old] == figures[new] == 1
        forget_worker(running.pop(0).kill())
        figures = running[0].figures()
        assert figures[new] == 1
        assert old not in figures


def test_a_file_that_a_worker_has_only_just_opened_disturbs_nobody() -> None:
    with workers(1) as (worker,):
        worker("refused", code="too_small")
        for name in ("counter_0.db", "histogram_0.db", "gauge_livesum_0.db"):
            (Path(os.environ[FOLDER_VARIABLE]) / name).touch()
        assert worker.figures()['chestxray_problems_total{code="too_small"}'] == 1
        forget_worker(0)
        assert not [name for name in shared_files() if name.endswith("_0.db")]


def test_workers_go_on_when_their_folder_is_tidied_away() -> None:
    with workers(1) as running:
        shutil.rmtree(os.environ[FOLDER_VARIABLE])
        running[0]("refused", code="too_small")
        assert running[0].figures() == {}
        running.append(Worker())
        running[1]("refused", code="too_small")
        assert running[0].figures()['chestxray_problems_total{code="too_small"}'] == 1
        forget_worker(running.pop(0).kill())


def test_the_shared_folder_is_private_and_gone_at_the_end() -> None:
    with metrics_folder():
        folder = Path(os.environ[FOLDER_VARIABLE])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "left.db").touch()
    assert not folder.exists()
    assert FOLDER_VARIABLE not in os.environ


def test_where_no_folder_can_be_made_the_start_stops_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # no /dev/shm
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="for the metrics: No such file"), metrics_folder():
        pass
