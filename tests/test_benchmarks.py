"""The benchmarks count right and their page is what their report says. No speed is asserted."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Error

from chestxray import imaging
from chestxray.inference.bundle import Preprocessing
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import CHROMIUM, chromium
from factories.servers import served

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import decoding  # noqa: E402
import load  # noqa: E402
import measurement  # noqa: E402
import original  # noqa: E402
import page  # noqa: E402
import processes  # noqa: E402
import reading_page  # noqa: E402
import scoring  # noqa: E402
import serving  # noqa: E402
import training  # noqa: E402
from limit import PROCESSES, THREADS  # noqa: E402
from measurement import Goal, Laps, Row  # noqa: E402
from radiographs import Radiographs, radiographs  # noqa: E402

SERVER = """
import argparse, hashlib, json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, json.dumps({k: v for k, v in os.environ.items() if "CHESTXRAY" in k}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1], "a") as seen:
            seen.write(hashlib.sha256(body).hexdigest() + self.headers["Content-Type"] + "\\n")
        self.answer(500 if self.path == "/broken" else 200, "{}")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

burning = "import time\\nwhile time.process_time() < 0.3: pass\\nprint(flush=True)\\ninput()"
pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
child = subprocess.Popen([sys.executable, "-c", burning], **pipes)
child.stdout.readline()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
"""
"""Burns 0.3 s in a child (which ends with it) before it is ready; writes down what it is sent."""


@pytest.fixture
def server(tmp_path: Path) -> list[str]:
    """The command of a small server, and after it the file that it writes to."""
    (tmp_path / "server.py").write_text(SERVER, encoding="utf-8")
    return [sys.executable, str(tmp_path / "server.py"), str(tmp_path / "seen")]


@pytest.fixture(scope="module")
def drawn() -> list[Radiographs]:
    with radiographs(None) as files:
        yield files


def row(what: str, on: str, connections: int | None = None, **figures: float) -> Row:
    return Row("serving", what, on, n=1, connections=connections, **figures)


# --- the page


def test_the_page_of_performance_is_what_its_report_says() -> None:
    checked = subprocess.run(
        [sys.executable, str(BENCHMARKS / "page.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_page_names_the_size_that_jpegs_are_shrunk_to() -> None:
    text = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"to no less than {Preprocessing.enough_px(224)} px a side" in text


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docs/ elsewhere, where pages may be written."""
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    monkeypatch.setattr(page, "REPOSITORY", tmp_path)
    return tmp_path


def test_a_changed_report_makes_its_page_stale_until_it_is_written(copied: Path) -> None:
    assert page.check() == []
    report = copied / "docs" / "reports" / "performance.json"
    facts = json.loads(report.read_text(encoding="utf-8"))
    facts["rows"] = [asdict(row("a new case", "new files", per_s=7))] + facts["rows"]
    report.write_text(json.dumps(facts), encoding="utf-8")

    assert page.check() == ["docs/performance.md"]
    assert page.write() == ["docs/performance.md"]
    assert page.check() == []
    assert "| a new case | new files |" in (copied / "docs" / "performance.md").read_text("utf-8")


def test_a_section_that_a_page_lacks_or_that_nothing_makes_is_an_error(copied: Path) -> None:
    file = copied / "docs" / "performance.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("figures:goals", "figures:gaols"), encoding="utf-8")
    with pytest.raises(page.PageError, match="lacks goals"):
        page.check()
    file.write_text(text + "<!-- figures:more -->\n<!-- /figures -->\n", encoding="utf-8")
    with pytest.raises(page.PageError, match="makes more"):
        page.check()


def test_goals_that_are_not_met_stand_out_on_the_page() -> None:
    goals = [Goal("rate", 5.9, 6, "×", at_least=True), Goal("memory", 250, 250, "MB")]
    report = {"quick": False, "goals": [asdict(goal) for goal in goals]}
    assert page.goals(report).splitlines()[2:] == [
        "| rate | ≥ 6 × | 5.90 × | **no** |",
        "| memory | ≤ 250 MB | 250 MB | yes |",
    ]


def test_a_quick_run_says_on_the_page_that_it_is_noise() -> None:
    assert page.goals({"quick": True, "goals": []}).startswith("**A quick run")


def test_figures_of_the_reading_page_have_their_median_and_their_worst() -> None:
    figures = [
        reading_page.figure("load", [0.2, 0.9, 0.4], "s"),
        reading_page.figure("rate", [30.0, 10.0, 20.0], "files/s", more_is_better=True),
    ]
    assert page.measured({"figures": [asdict(of) for of in figures]}).splitlines()[2:] == [
        "| load | 3 | 0.4 s | 0.9 s |",
        "| rate | 3 | 20 files/s | 10 files/s |",
    ]


# --- rows


def test_laps_become_a_row_of_rates_and_percentiles() -> None:
    laps = Laps([0.010] * 98 + [0.030, 0.050], cpu_s=0.5)
    made = laps.row("training", "step", "4 images", each=4)
    assert made.n == 400
    assert made.per_s == pytest.approx(400 / 1.06)
    assert made.p50_ms == pytest.approx(10)
    assert 30 < made.p99_ms < 31  # between the 99th and the 100th
    assert made.cpu_ms == pytest.approx(1.25)


def test_no_p99_is_given_of_fewer_than_a_hundred_calls() -> None:
    assert measurement.p99_ms([0.01] * 99) is None
    assert measurement.p99_ms([0.01] * 100) == pytest.approx(10)


def test_cases_take_turns_and_the_first_call_of_a_turn_is_not_counted() -> None:
    called = []
    cases = {name: (lambda name=name: called.append(name)) for name in "ab"}
    laps = measurement.in_turns(cases, rounds=2, seconds=0)
    assert "".join(called) == "aabbaabb"
    assert [len(laps[name].wall_s) for name in "ab"] == [2, 2]


def test_rounds_are_summed_up_by_their_medians() -> None:
    rounds = [row("x", "y", per_s=rate, p50_ms=5) for rate in (10.0, 90.0, 20.0)]
    summed = measurement.median_of(rounds)
    assert summed == replace(rounds[0], n=3, per_s=20)
    assert summed.memory_mb is None


def test_every_figure_of_a_row_has_its_cell() -> None:
    full = Row("b", "w", "o", 12, 3479.2, 20.44, 5.0, 0.2434, 208.6, 8, "n")
    told = dict(zip(measurement.HEADER, measurement.cells(full), strict=True))
    assert list(told.values()) == [
        "b",
        "w",
        "o",
        "8",
        "12",
        "3479",
        "20.4",
        "5.0",
        "0.243",
        "209",
        "n",
    ]
    empty = dict(zip(measurement.HEADER, measurement.cells(Row("b", "w", "o", 1)), strict=True))
    assert {empty[name] for name in ("connections", "per second", "p99 ms", "MB")} == {""}


# --- what rows of serving say of one another


@pytest.fixture
def rows() -> list[Row]:
    found = [row(serving.START, "the shipped bundle", p50_ms=1500)]
    for kind in ("originals", "small"):
        found += [
            row(serving.SERVICE, kind, 1, per_s=30, p50_ms=30, p99_ms=90, cpu_ms=30, memory_mb=150),
            row(serving.SERVICE, kind, 8, per_s=66, p50_ms=100, p99_ms=150, cpu_ms=22, memory_mb=9),
            row(serving.HEATMAP, kind, 8, per_s=60, cpu_ms=24.2, memory_mb=240),
            row(serving.ORIGINAL, kind, 1, per_s=10),
            row(serving.ORIGINAL, kind, 8, per_s=11),
            row(THREADS, kind, per_s=70, cpu_ms=20),
            row(PROCESSES, kind, per_s=60, cpu_ms=10),
        ]
    return found


def test_goals_compare_best_with_best_and_with_the_faster_limit(rows: list[Row]) -> None:
    goals = {goal.what: goal for goal in serving.goals(rows)}
    values = {what: round(goal.value, 3) for what, goal in goals.items()}
    assert values == {
        f"{kind}: {what}": value
        for kind in ("originals", "small")
        for what, value in (
            ("requests/s, to the original's way", 6.0),
            ("CPU of a request, to the in-process limit's", 1.1),
            ("p99, to p50", 1.5),
            ("CPU with a heatmap, to without", 1.1),
        )
    } | {"start until ready": 1.5, "resident memory after the load": 240}
    assert all(goal.met for goal in goals.values())


def test_each_load_of_the_service_is_compared_at_as_many_connections(rows: list[Row]) -> None:
    noted = serving.with_ratios(rows)
    assert serving.only(noted, serving.SERVICE, "small", 1).note.startswith(
        "3.0 × the original's way, 0.43 × the limit; CPU 1.50 × its"
    )
    assert serving.only(noted, serving.HEATMAP, "small", 8).note == ""


# --- processes


def test_cpu_time_is_read_behind_a_name_with_spaces_and_parentheses() -> None:
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    stat = "7 (a) (b c) S 1 7 7 0 -1 4194304 9 0 0 0 150 50 30 20 20 0 4 0 99"
    assert processes.cpu_s_of(stat) == pytest.approx(200 * tick_s)


def test_cpu_time_of_this_process_is_what_the_system_says() -> None:
    read_s = processes.cpu_s_of(Path("/proc/self/stat").read_text(encoding="utf-8"))
    assert read_s == pytest.approx(sum(os.times()[:2]), abs=0.2)


def test_resident_memory_is_in_millions_of_bytes() -> None:
    assert processes.resident_mb_of("VmHWM:\t 9 kB\nVmRSS:\t 250000 kB\n") == pytest.approx(256)


def test_a_server_is_watched_with_its_children_and_gets_no_settings_of_ours(
    server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHESTXRAY_QUEUE_SIZE", "1")
    with processes.started(server, "/", {"CHESTXRAY_THREADS": "2"}) as running:
        assert httpx.get(running.address).json() == {"CHESTXRAY_THREADS": "2"}
        assert running.cpu_s() >= 0.3
        assert 1 < running.memory_mb() < 500
        running.wait_until_quiet()
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.address)


def test_a_server_that_does_not_start_says_why() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    with (
        pytest.raises(processes.ServerError, match="does not start: no such bundle"),
        processes.started(command, "/readyz"),
    ):
        pass


# --- load


TOLD = {"n": 9, "seconds": 2.5, "p50_ms": 4.0, "p99_ms": 8.0, "bad_statuses": 0, "broken": 0}


def test_what_wrk_says_is_read_from_the_line_of_json_among_its_own() -> None:
    told = f"Running 2s test\n  Requests/sec: 4\n{json.dumps(TOLD)}\n"
    assert load.parsed(told, 0.1) == load.Load(9, 2.5, 4.0, 8.0, cpu_s=0.1)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (json.dumps(TOLD | {"bad_statuses": 2}), "2 of 9 requests: bad_statuses"),
        (json.dumps(TOLD | {"broken": 1}), "1 of 9 requests: broken"),
        (json.dumps(TOLD | {"n": 0}), "no request was answered"),
        ("unable to connect to 127.0.0.1", "unable to connect"),
    ],
)
def test_a_load_that_did_not_go_well_is_no_measurement(told: str, message: str) -> None:
    with pytest.raises(load.LoadError, match=message):
        load.parsed(told, 0.1)


def test_wrk_posts_every_file_as_it_is_and_refusals_fail_the_load(
    server: list[str], tmp_path: Path
) -> None:
    if not shutil.which("wrk"):
        pytest.skip("needs wrk")
    files = [b"one \x00\r\n file", bytes(range(256)) * 300]
    bodies = load.write_bodies(files, tmp_path / "bodies")
    with processes.started(server, "/") as running:
        at = running.address
        found = load.load(at, "/predict", bodies=bodies, connections=2, seconds=1)
        assert load.load(at, "/", bodies=None, connections=2, seconds=1).n > 0
        with pytest.raises(load.LoadError, match="bad_statuses"):
            load.load(at, "/broken", bodies=bodies, connections=2, seconds=1)

    seen = Path(server[-1]).read_text(encoding="utf-8").split("\n")
    boundary = f"multipart/form-data; boundary={load.BOUNDARY}"
    sent = {hashlib.sha256(file.read_bytes()).hexdigest() + boundary for file in bodies.iterdir()}
    assert {line for line in seen if line} == sent
    assert found.n > 0
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.cpu_s > 0


def test_a_body_is_one_file_of_a_form(tmp_path: Path) -> None:
    bodies = load.write_bodies([b"a file"], tmp_path / "bodies")
    head, _, rest = (bodies / "0.body").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(f"--{load.BOUNDARY}\r\n".encode())
    assert b'name="file"; filename=' in head
    assert rest == f"a file\r\n--{load.BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize("program", ["serving.py", "options.py", "bench.py"])
def test_where_wrk_is_missing_one_line_says_so(program: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, str(BENCHMARKS / program)],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert re.fullmatch(r"\w+: .*wrk, which is not installed.*\n", told.stderr)


# --- what is measured


def test_synthetic_files_stand_in_for_both_kinds(drawn: list[Radiographs]) -> None:
    sizes = {
        of.kind: {(r.width_px, r.height_px) for r in map(imaging.read, of.contents())}
        for of in drawn
    }
    assert sizes == {"originals": {(1300, 1000)}, "small": {(224, 224)}}
    assert all("synthetic" in of.facts()["source"] for of in drawn)


def test_published_files_are_taken_where_there_are_any(shared_data: Path) -> None:
    with radiographs(shared_data) as files:
        facts = {of.kind: of.facts() for of in files}
        assert [of.kind for of in files] == ["originals", "small"]
    assert facts["originals"]["n"] == facts["small"]["n"] == 80
    assert facts["originals"]["mean_bytes"] > 20 * facts["small"]["mean_bytes"]


def test_the_originals_network_is_resnet18_with_three_channels_in() -> None:
    # torchvision's resnet18 has 11,689,512 parameters, 513,000 of them in its layer for 1000
    # classes; one logit needs 513.
    n_parameters = sum(p.numel() for p in original.network().parameters())
    assert n_parameters == 11_689_512 - 513_000 + 513


def test_the_originals_way_answers_and_refuses_what_is_no_image(drawn: list[Radiographs]) -> None:
    with processes.started(serving.SERVE_AS_ORIGINAL, "/metadata") as running:
        url = f"{running.address}/predict"
        answered = httpx.post(url, files={"file": ("a.jpeg", drawn[0].contents()[0])}, timeout=60)
        refused = httpx.post(url, files={"file": ("a.jpeg", b"text")}, timeout=60)
    assert answered.status_code == 200
    assert answered.json()["prediction"] in {"NORMAL", "PNEUMONIA"}
    assert 0 < answered.json()["probability"] < 1
    assert refused.status_code == 400


def test_decoding_has_a_row_for_each_kind_of_file(
    drawn: list[Radiographs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "N_PNGS", 1)
    found = decoding.measure(drawn, rounds=1, seconds=0)
    assert len(found) == len({made.on for made in found}) == 5
    assert all(made.per_s > 0 for made in found)


def test_training_steps_are_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SIDE_PX", 32)
    found = training.measure([], rounds=1, seconds=0)
    assert [made.on for made in found] == ["32 images of 32 px"] * 3
    assert all(made.n == 32 for made in found)


def test_scoring_is_compared_with_the_better_limit(drawn: list[Radiographs]) -> None:
    small = drawn[1]
    scored, best = scoring.measure([small], rounds=1, seconds=0)
    assert (scored.what, scored.on, scored.n) == (scoring.SCORING, "small", len(small.paths))
    assert best.what in {THREADS, PROCESSES}
    assert scored.note == f"{scored.per_s / best.per_s:.2f} × the limit"


def test_a_run_of_some_benchmarks_prints_their_table_and_writes_only_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "N_PNGS", 1)
    monkeypatch.setattr(decoding, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "REPORT", tmp_path / "committed.json")
    monkeypatch.setattr(sys, "argv", ["bench.py", "decoding", "--out", str(tmp_path / "r.json")])
    bench.main()
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [Row(**told).benchmark for told in report["rows"]] == ["decoding"] * 5
    assert report["rows"][0]["on"] in capsys.readouterr().out
    assert report["commit"] in page.conditions(report)
    assert not (tmp_path / "committed.json").exists()


# --- the reading page


@pytest.mark.parametrize("published", [True, False])
def test_files_for_the_reading_page_are_of_every_kind_and_always_the_same(
    published: bool, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue("shared_data") if published else None
    files, sources = reading_page.mixed(data)
    assert Counter(file.kind for file in files) == reading_page.KINDS
    assert set(sources) == set(reading_page.KINDS)
    assert files == reading_page.mixed(data)[0]


@pytest.mark.parametrize(
    ("probability", "uncertain", "shown"),
    [
        (0.97149, False, "PNEUMONIA 0.971"),
        (0.9996, False, "PNEUMONIA > 0.999"),
        (0.0004, True, "PNEUMONIA < 0.001, uncertain"),
    ],
)
def test_a_row_should_say_what_the_service_answered(
    probability: float, uncertain: bool, shown: str
) -> None:
    prediction = {"label": "PNEUMONIA", "probability": probability, "uncertain": uncertain}
    assert reading_page.state({"prediction": prediction}) == shown


@pytest.fixture
def opened() -> Iterator[tuple[Browser, str]]:
    """A real browser, and the address of the service with the bundle that ships."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which is not installed")
    with served(create_app(Settings())) as client, chromium() as browser:
        yield browser, str(client.base_url)


def test_rows_of_the_page_in_a_real_browser_are_compared_with_the_services_answers(
    opened: tuple[Browser, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, address = opened
    files = reading_page.mixed(None)[0][:24]
    ask = reading_page.posted

    def posted(*asked: Any) -> tuple[float, list[str]]:
        took_s, (_, *others) = ask(*asked)
        return took_s, ["something else", *others]

    monkeypatch.setattr(reading_page, "posted", posted)
    figures, told = reading_page.measure(address, browser, files, loads=1, rounds=1)
    assert all(0 < of.median < 60_000 for of in figures if "task" not in of.what)
    goals = {goal.what: goal for goal in told}
    assert goals["rows of 24 as the service answers, fewest"].value == 23
    assert goals["errors on the console"].value == 0
    assert goals["requests to other hosts"].value == 0


def test_errors_and_requests_to_other_hosts_are_counted(opened: tuple[Browser, str]) -> None:
    browser, address = opened
    told = reading_page.Told()
    with reading_page.opened(browser, address, told) as page_:
        page_.evaluate("() => { console.warn('a warning'); console.error('an error'); }")
        with page_.expect_event("pageerror"):
            page_.evaluate("() => { setTimeout(() => { throw new Error('thrown'); }); }")
        with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
            page_.goto("http://elsewhere.invalid/x")
    assert told.errors == ["an error", "thrown"]
    assert told.elsewhere == ["http://elsewhere.invalid/x"]
