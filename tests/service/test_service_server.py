"""The real server in its own process: it starts, drains on SIGTERM, and ends with 0."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chestxray.errors import BundleMissingError, ConfigError
from chestxray.inference import read_bundle
from chestxray.service.server import serve
from chestxray.service.settings import Settings
from chestxray.service.supervisor import Supervisor
from factories import raw_http
from factories.bundles import write_tiny_bundle
from factories.requests import predict, radiograph_png
from factories.servers import address_told, is_ready, wait_until

PROGRAM = """
import sys
import termios
from chestxray.service.server import serve
from chestxray.service.settings import load_settings
serve(load_settings(bundle=sys.argv[1], port=0, threads=2, workers=int(sys.argv[2])))
"""

# The pause before a replacement begins with the signal.
SIGTERM_IN_PAUSE = """
import os, signal
from chestxray.service.supervisor import Supervisor
later = Supervisor._replace_later
def replace_later(self, worked_s):
    later(self, worked_s)
    os.kill(os.getpid(), signal.SIGTERM)
Supervisor._replace_later = replace_later
"""

# Workers that end as soon as they begin: ``chain`` takes whatever a worker is given, and does not
# even look at it.
ENDS_AT_ONCE = """
import itertools
import chestxray.service.server as server
server._work = itertools.chain
"""

# Every file is judged for ever, by a thread that nothing can end.
WEDGED = """
import threading
import chestxray.service.api.routes as routes
import chestxray.service.server as server
routes.assess = lambda *_, **__: threading.Event().wait()
server.DRAIN_TIMEOUT_S, server.END_TIMEOUT_S = 1, 2
"""

WITHIN_REACH_WITHOUT_KEYS = """
import os
import re
os.environ["CHESTXRAY_HOST"] = "0.0.0.0"
os.environ["CHESTXRAY_REQUIRE_API_KEY"] = "false"
"""

WITHIN_REACH_WITH_KEYS = """
import os
import re
os.environ["CHESTXRAY_HOST"] = "0.0.0.0"
os.environ["CHESTXRAY_API_KEYS"] = "ward:" + 64 * "0"
"""

# A worker that is killed while it is told what to do breaks the pipe that tells it.
START_BREAKS_ONCE = """
from multiprocessing.context import SpawnProcess
starts = [BrokenPipeError()]
start = SpawnProcess.start
def start_or_break(process):
    if starts:
        raise starts.pop()
    start(process)
SpawnProcess.start = start_or_break
"""


@contextmanager
def server(
    bundle: Path, workers: int = 1, prelude: str = "", **started: Any
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process and its port."""
    with subprocess.Popen(
        [sys.executable, "-c", prelude + PROGRAM, str(bundle), str(workers)],
        stderr=subprocess.PIPE,
        text=True,
        **started,
    ) as process:
        try:
            yield process, int(address_told(process).rpartition(":")[2])
        finally:
            process.kill()


def test_a_server_answers_and_ends_with_0_on_sigterm(tiny_bundle: Path) -> None:
    with server(tiny_bundle) as (process, port):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert client.get("/readyz").status_code == 200
            assert predict(client, radiograph_png()).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("prelude", "level", "message"),
    [
        ("", "INFO", "anyone on this machine is answered at {url}, and nobody else reaches it"),
        (WITHIN_REACH_WITH_KEYS, "INFO", "who reaches {url} needs an API key"),
        (
            WITHIN_REACH_WITHOUT_KEYS,
            "WARNING",
            "anyone who reaches {url} is answered: no API key is demanded",
        ),
    ],
    ids=["loopback", "keys", "anyone"],
)
def test_the_first_line_of_the_log_says_who_is_answered_and_no_other_does(
    tiny_bundle: Path, workers: int, prelude: str, level: str, message: str
) -> None:
    arguments = [sys.executable, "-c", prelude + PROGRAM, str(tiny_bundle), str(workers)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        url = re.search(r"http://[0-9.:]+", first["message"])[0]
        port = int(url.rpartition(":")[2])
        wait_until(lambda: is_ready(port))
        process.send_signal(signal.SIGTERM)
        others = [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    assert (first["level"], first["message"]) == (level, message.format(url=url))
    assert {entry["level"] for entry in others} == {"INFO"}
    assert not any("answered" in entry["message"] for entry in others)


def test_on_sigterm_readyz_turns_503_and_what_is_in_flight_is_answered(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    body = radiograph_png()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    body = head + body + b"\r\n--b--\r\n"
    with server(tiny_bundle) as (process, port):
        in_flight = socket.create_connection(("127.0.0.1", port), timeout=30)
        with closing(in_flight):
            in_flight.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)
            )
            # The server asks for the body only after the request has got its place.
            assert in_flight.recv(1000).startswith(b"HTTP/1.1 100")
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: status(port, "/readyz") == 503)
            assert status(port, "/livez") == 200
            assert status(port, "/predict", "POST") == 503
            in_flight.sendall(body)
            with in_flight.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200")
                assert b'"probability"' in answer.read()
        assert process.wait(30) == 0


def test_a_worker_that_is_killed_is_replaced_and_all_end_with_0_on_sigterm(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers=2) as (process, port):
        wait_until(lambda: answers(port))
        before = children(process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: len(children(process.pid)) == 2 and before[0] not in children(process.pid)
        )
        wait_until(lambda: answers(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_any_worker_tells_the_metrics_of_all_also_of_one_that_was_killed(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers=2) as (process, port):
        wait_until(lambda: answers(port))
        memory = "chestxray_resident_memory_bytes[('pid', '{}')]"
        first, second = children(process.pid)
        wait_until(lambda: {memory.format(first), memory.format(second)} <= set(figures(port)))
        for _ in range(9):  # each on a connection of its own, so with either worker
            assert answers(port)
        before = figures(port)
        assert total(before, "chestxray_predictions_total") == 10
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(children(process.pid)) == 2 and first not in children(process.pid))
        after = figures(port)
        assert memory.format(first) not in after
        assert total(after, "chestxray_worker_deaths_total") == 1
        kept = ("_total[", "_bucket[", "_count[", "_sum[")
        counts = [series for series in before if any(kind in series for kind in kept)]
        assert len(counts) > 100
        assert all(after[series] >= before[series] for series in counts)
        assert answers(port)
        assert total(figures(port), "chestxray_predictions_total") == 11
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_worker_that_dies_while_it_is_started_is_replaced_too(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers=2, prelude=START_BREAKS_ONCE) as (process, port):
        wait_until(lambda: len(children(process.pid)) == 2 and answers(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_workers_do_not_outlive_their_supervisor(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers=2) as (process, port):
        wait_until(lambda: answers(port))
        workers = children(process.pid)
        folder = metrics_folder_of(workers[0])
        assert folder.is_dir()
        process.kill()
        process.wait(30)
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert not folder.exists()  # in memory it would stay until the next start of the machine
        assert not answers(port)


def test_a_replacement_answers_with_the_same_bundle_whatever_has_become_of_the_folder(
    tiny_bundle: Path, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    with server(bundle, workers=2) as (process, port):
        wait_until(lambda: answers(port))
        shutil.rmtree(bundle)
        for worker in children(process.pid):
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: answers(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("gone_before_the_signal", [True, False])
def test_a_thread_that_never_ends_does_not_outlive_the_grace(
    tiny_bundle: Path, gone_before_the_signal: bool, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, prelude=WEDGED) as (process, port), wedging(port) as asking:
        wait_until(lambda: waits_for_an_answer(port))
        if gone_before_the_signal:
            asking.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_wedged_process_at_once_and_without_a_word(
    tiny_bundle: Path, number: signal.Signals, wait_until: Callable[..., None]
) -> None:
    patient = WEDGED + "server.DRAIN_TIMEOUT_S = server.END_TIMEOUT_S = 1000\n"
    with server(tiny_bundle, prelude=patient) as (process, port), wedging(port):
        wait_until(lambda: waits_for_an_answer(port))
        process.send_signal(number)
        wait_until(lambda: status(port, "/readyz") == 503)
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@contextmanager
def wedging(port: int) -> Iterator[socket.socket]:
    """A connection whose radiograph is sent, and being judged."""
    body = raw_http.form(radiograph_png())
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as asking:
        asking.sendall(raw_http.post(len(body)) + body)
        yield asking


def waits_for_an_answer(port: int) -> bool:
    return total(figures(port), "chestxray_requests_in_flight") == 1


def test_ctrl_c_in_a_terminal_lets_all_workers_answer_what_is_in_flight(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    """A terminal sends its signal to the supervisor and to the workers."""
    body = raw_http.form(radiograph_png())
    with server(tiny_bundle, workers=2, start_new_session=True) as (process, port):
        wait_until(lambda: answers(port))
        in_flight = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(4)]
        with ExitStack() as open_ones:
            for connection in in_flight:
                open_ones.enter_context(closing(connection))
                connection.sendall(raw_http.post(len(body), "Expect: 100-continue"))
                assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            os.killpg(process.pid, signal.SIGINT)
            wait_until(lambda: status(port, "/readyz") == 503)
            for connection in in_flight:
                connection.sendall(body)
                assert raw_http.received(connection)[0].status == 200
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_second_signal_ends_the_supervisor_and_its_workers_at_once(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with (
        server(tiny_bundle, workers=2) as (process, port),
        closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as stuck,
    ):
        wait_until(lambda: answers(port))
        folder = metrics_folder_of(children(process.pid)[0])
        workers = children(process.pid)
        stuck.sendall(raw_http.post(9, "Expect: 100-continue"))
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(port, "/readyz") == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert not folder.exists()


def metrics_folder_of(worker: int) -> Path:
    variables = Path(f"/proc/{worker}/environ").read_bytes().decode().split("\0")
    (folder,) = (name for name in variables if name.startswith("PROMETHEUS_MULTIPROC_DIR="))
    return Path(folder.partition("=")[2])


def test_workers_that_cannot_start_are_replaced_with_ever_longer_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chestxray.service.supervisor.time.monotonic", lambda: 1000.0)
    supervisor = Supervisor(print, None, lambda: None, (), n_workers=2)

    def pauses(*worked_s: float) -> list[float]:
        supervisor._due_s.clear()
        for each in worked_s:
            supervisor._replace_later(each)
        return [due_s - 1000 for due_s in supervisor._due_s]

    assert pauses(*[0.1] * 10) == [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses(3600, 0.1) == [0.5, 0.5]  # it could start


def test_workers_that_cannot_start_do_not_hold_up_the_end(tiny_bundle: Path) -> None:
    with server(tiny_bundle, workers=2, prelude=ENDS_AT_ONCE) as (process, _):
        assert process.stderr is not None
        replaced = (line for line in process.stderr if "is replaced" in line)
        for _ in range(4):
            next(replaced)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_sigterm_while_a_worker_is_being_replaced_leaves_none_behind(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers=2, prelude=SIGTERM_IN_PAUSE) as (process, port):
        wait_until(lambda: answers(port))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        assert process.wait(60) == 0


def figures(port: int) -> dict[str, float]:
    """Every sample of ``/metrics``, asked on a connection of its own."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(figures: dict[str, float], name: str) -> float:
    return sum(value for series, value in figures.items() if series.startswith(f"{name}["))


def children(pid: int) -> list[int]:
    """The worker processes of a server; ``spawn`` starts a resource tracker beside them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    found = []
    for child in listed:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def answers(port: int) -> bool:
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            return predict(client, radiograph_png()).status_code == 200
    except httpx.TransportError:
        return False


FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
"""


def test_with_few_files_more_connections_than_those_neither_stop_the_service_nor_spoil_an_answer(
    tiny_bundle: Path, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, prelude=FEW_FILES) as (process, port), ExitStack() as open_ones:
        wait_until(lambda: answers(port))
        for _ in range(200):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        assert all(answers(port) for _ in range(3))
        assert figures(port)["chestxray_resident_memory_bytes[]"] > 0
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "ERROR" not in process.stderr.read()
        assert process.wait(60) == 0


def test_a_second_sigterm_does_not_wait(tiny_bundle: Path, wait_until: Callable[..., None]) -> None:
    with (
        server(tiny_bundle) as (process, port),
        closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as stuck,
    ):
        stuck.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9\r\n\r\n"
        )
        assert stuck.recv(1000).startswith(b"HTTP/1.1 100")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(port, "/readyz") == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


def test_a_bundle_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError):
        serve(Settings(bundle=tmp_path, port=0))


def test_a_port_in_use_stops_the_start_with_one_line(tiny_bundle: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}: Address already in use"):
            serve(Settings(bundle=tiny_bundle, port=port))


def status(port: int, path: str, method: str = "GET") -> int:
    """The status of one request on a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path)
        with connection.getresponse() as response:
            body = response.read()
            assert isinstance(json.loads(body), dict)
            return response.status


# --- new bundles ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be replaced."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def bundle_of(port: int) -> str:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        answer = predict(client, radiograph_png())
        assert answer.status_code == 200
        return str(answer.json()["model"]["bundle_sha256"])


def reloads(port: int) -> dict[str, float]:
    body = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
        if sample.name == "chestxray_bundle_reloads_total"
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_on_sighup_a_new_bundle_answers_and_no_request_is_lost(
    folder: Path, workers: int, wait_until: Callable[..., None]
) -> None:
    old = read_bundle(folder).sha256
    with server(folder, workers) as (process, port):
        wait_until(lambda: answers(port))
        assert bundle_of(port) == old
        new = read_bundle(write_tiny_bundle(folder, seed=5)).sha256
        assert bundle_of(port) == old  # until it is told to
        process.send_signal(signal.SIGHUP)
        seen = []
        wait_until(lambda: seen.append(bundle_of(port)) or reloads(port)["replaced"] == workers)
        assert set(seen) <= {old, new}
        assert {bundle_of(port) for _ in range(10)} == {new}
        assert reloads(port)["failed"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_on_sighup_a_bundle_that_does_not_work_changes_nothing_and_is_told(
    folder: Path, workers: int, wait_until: Callable[..., None]
) -> None:
    old = read_bundle(folder).sha256
    with server(folder, workers) as (process, port):
        wait_until(lambda: answers(port))
        (folder / "model.onnx").write_bytes(b"half a model")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(port)["failed"] == workers)
        assert {bundle_of(port) for _ in range(5)} == {old}
        assert status(port, "/readyz") == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        logged = [json.loads(line) for line in process.stderr]
        assert process.wait(60) == 0
    errors = [entry["message"] for entry in logged if entry["level"] == "ERROR"]
    assert len(errors) == 1
    assert errors[0].startswith("the bundles are not replaced: the model in ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bundle_that_nobody_foresaw_leaves_the_old_one_at_work_and_later_ones_are_read(
    folder: Path, workers: int, wait_until: Callable[..., None]
) -> None:
    old = read_bundle(folder).sha256
    unforeseen = """
from chestxray.service.api import served
usual = served.read_bundles
def read_bundles(*given):
    from pathlib import Path
    import sys
    if (Path(sys.argv[1]) / "unforeseen").exists():
        raise ZeroDivisionError("of Jane Roe")
    return usual(*given)
served.read_bundles = read_bundles
"""
    with server(folder, workers, unforeseen) as (process, port):
        wait_until(lambda: answers(port))
        (folder / "unforeseen").touch()
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(port)["failed"] == workers)
        assert bundle_of(port) == old
        (folder / "unforeseen").unlink()
        new = read_bundle(write_tiny_bundle(folder, seed=5)).sha256
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(port)["replaced"] == workers)
        assert bundle_of(port) == new
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "Jane Roe" not in process.stderr.read()
        assert process.wait(60) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_burst_of_sighups_is_survived(
    tiny_bundle: Path, tmp_path: Path, workers: int, wait_until: Callable[..., None]
) -> None:
    with server(tiny_bundle, workers) as (process, port):
        wait_until(lambda: answers(port))
        for _ in range(300):
            process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(port)["replaced"] >= workers)
        assert answers(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_worker_that_is_replaced_begins_with_the_newest_bundle(
    folder: Path, wait_until: Callable[..., None]
) -> None:
    with server(folder, 2) as (process, port):
        wait_until(lambda: answers(port))
        new = read_bundle(write_tiny_bundle(folder, seed=5)).sha256
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads(port)["replaced"] == 2)
        shutil.rmtree(folder)
        dead = children(process.pid)
        os.kill(dead[0], signal.SIGKILL)
        wait_until(lambda: len({*children(process.pid)} - {*dead}) == 1)
        wait_until(lambda: answers(port))
        assert {bundle_of(port) for _ in range(20)} == {new}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_is_closed_ends_its_server_wherever_its_log_goes(
    tiny_bundle: Path, tmp_path: Path, workers: int, wait_until: Callable[..., None]
) -> None:
    terminal, theirs = os.openpty()
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tiny_bundle), str(workers)],
            stdin=theirs,
            stdout=theirs,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - its own
        )
    os.close(theirs)
    wait_until(lambda: re.search(rb"http://127.0.0.1:\d+", log.read_bytes()))
    port = int(re.search(rb"http://127.0.0.1:(\d+)", log.read_bytes())[1])
    wait_until(lambda: answers(port))
    process.send_signal(signal.SIGHUP)  # the terminal is there: new bundles
    wait_until(lambda: reloads(port)["replaced"] == workers)
    folders = [metrics_folder_of(worker) for worker in children(process.pid)]
    assert len(folders) == (workers if workers > 1 else 0)
    os.close(terminal)
    assert process.wait(60) is not None
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")
