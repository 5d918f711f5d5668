"""The same rows as on one machine, whatever dies: against a real Ray of several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from chestxray.archive.cluster import score_on_cluster
from chestxray.archive.files import Item, Walk, find
from chestxray.archive.rows import Row
from chestxray.archive.scoring import Job, Part, Scorer
from chestxray.errors import BundleError, ClusterError
from chestxray.imaging.synthetic import synthetic_radiograph
from factories import images
from factories.pacs import free_port
from factories.ray_cluster import (
    RayCluster,
    addresses_listened_at,
    kill,
    kill_session,
    let_ray_in,
    processes_of,
    ray_cluster,
)
from factories.ray_driver import Scored, scored
from factories.servers import wait_until

Rows = dict[int, list[list[Row]]]
"""The rows of each file, by the part."""


@pytest.fixture(autouse=True)
def _ray_in() -> None:
    let_ray_in()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Radiographs, what is none, what is broken, and a zip: a file of each kind of row."""
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(6):
        pixels = synthetic_radiograph(seed, 256)
        (folder / f"{seed}.jpeg").write_bytes(images.jpeg((pixels * 255).astype("uint8")))
    (folder / "gradient.png").write_bytes(images.png(images.smooth()))
    (folder / "short.jpeg").write_bytes(images.jpeg(images.smooth())[:200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(folder / "study.zip", "w") as study:
        study.write(folder / "0.jpeg", "first/0.jpeg")
        study.write(folder / "1.jpeg", "first/1.jpeg")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(2) as started:
        yield started


def items_of(archive: Path) -> tuple[Item, ...]:
    return tuple(find(str(archive), Walk(archive / "rows.csv")))


def parts_of(archive: Path, n_parts: int, repeats: int) -> list[Part]:
    """Parts that hold the archive's files ``repeats`` times, so that one takes a while."""
    return [Part(number, items_of(archive) * repeats) for number in range(n_parts)]


def rows_here(parts: Iterable[Part], job: Job) -> Rows:
    with closing(Scorer(job, threads=1)) as scorer:
        return {part.number: list(scorer.rows(part)) for part in parts}


def collected(answers: Iterable[Scored]) -> Rows:
    rows: Rows = {}
    for number, part_rows, _ in answers:
        assert number not in rows, "a part came twice"
        rows[number] = part_rows
    return rows


def parts_by_relative_names(folder: Path, name: str) -> list[Part]:
    os.chdir(folder)
    items = tuple(find(name, Walk(Path(name, "rows.csv"))))
    return [Part(number, items[number::3]) for number in range(3)]


def test_a_cluster_makes_the_rows_that_one_machine_makes(
    cluster: RayCluster, archive: Path, two: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative names lead to the same files on a node, which has another current directory."""
    parts = partial(parts_by_relative_names, archive.parent, archive.name)
    monkeypatch.chdir(archive.parent)  # back afterwards
    rows = collected(scored(parts, two, cluster.address))
    assert rows == rows_here(parts(), two)
    assert {row.model for part in rows.values() for of_file in part for row in of_file} == {
        "tiny",
        "other",
    }
    assert {of_file[0].error_code for part in rows.values() for of_file in part} >= {
        None,
        "truncated_file",
        "empty_file",
        "unsupported_format",
    }


def test_an_archive_is_gone_through_in_waves(cluster: RayCluster, archive: Path, job: Job) -> None:
    parts = partial(parts_of, archive, n_parts=9, repeats=1)
    answers = list(scored(parts, job, cluster.address, PARTS_PER_CPU=2))
    for n_done, answer in enumerate(answers):
        assert answer.n_taken <= 4 * (1 + n_done // 4), "parts of a later wave are held already"
    assert answers[-1].n_taken == 9
    assert collected(answers) == rows_here(parts(), job)


def test_killed_processes_cost_no_row_and_double_none(
    cluster: RayCluster, archive: Path, job: Job
) -> None:
    parts = partial(parts_of, archive, n_parts=16, repeats=40)
    kills = 0

    def answers_between_kills() -> Iterator[Scored]:
        nonlocal kills
        for n_done, answer in enumerate(scored(parts, job, cluster.address)):
            yield answer
            if n_done % 4 == 0:
                for pid in cluster.actors_at_work():
                    kill(pid)
                    kills += 1

    rows = collected(answers_between_kills())
    assert kills >= 3
    assert rows == rows_here(parts(), job)


def test_a_node_that_dies_costs_no_row(archive: Path, job: Job) -> None:
    parts = partial(parts_of, archive, n_parts=16, repeats=40)
    over = threading.Event()

    def kill_one_at_work(cluster: RayCluster) -> bool:
        # Not when an answer comes: by then a fast cluster may have done everything.
        while not over.wait(0.01):
            for node in (1, 2):
                if cluster.actors_at_work(node):
                    cluster.kill(node)
                    return True
        return False

    with ray_cluster(1, 1) as cluster, ThreadPoolExecutor(1) as beside:
        killed = beside.submit(kill_one_at_work, cluster)
        try:
            rows = collected(scored(parts, job, cluster.address))
        finally:
            over.set()
        assert killed.result(), "no node was at work"
    assert rows == rows_here(parts(), job)


def test_a_bundle_that_does_not_run_ends_the_run_with_our_error(
    cluster: RayCluster, archive: Path, job: Job
) -> None:
    broken = replace(job, bundles={"tiny": replace(job.bundles["tiny"], model=b"no model")})
    started = time.monotonic()
    with pytest.raises(BundleError):
        collected(scored(partial(parts_of, archive, 4, 1), broken, cluster.address))
    assert time.monotonic() - started < 60


class Deadly(Item):
    """An item that kills the process that unpacks it, as a decoder's fault would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def deadly_parts() -> list[Part]:
    return [Part(0, (Deadly("x", "x"),))]


def test_a_part_that_kills_every_process_ends_the_run(cluster: RayCluster, job: Job) -> None:
    with pytest.raises(ClusterError):
        collected(scored(deadly_parts, job, cluster.address, STALL_TIMEOUT_S=20))


def test_an_address_where_nothing_answers_is_an_error_within_seconds(job: Job) -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match="nothing answers"):
        list(score_on_cluster([], job, f"127.0.0.1:{free_port()}"))
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_an_address_where_something_else_answers_is_an_error(job: Job, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(said)

        other = threading.Thread(target=answer)
        other.start()
        with pytest.raises(ClusterError, match="not the head of a Ray cluster"):
            list(score_on_cluster([], job, f"127.0.0.1:{listener.getsockname()[1]}"))
        other.join()


def test_an_address_that_accepts_and_is_silent_is_an_error_within_seconds(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chestxray.archive.cluster.CONNECT_TIMEOUT_S", 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ClusterError, match="nothing answers"),
    ):
        list(score_on_cluster([], job, f"127.0.0.1:{listener.getsockname()[1]}"))


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "127.0.0.1", "head:port", ""])
def test_what_is_no_address_is_refused(job: Job, address: str) -> None:
    with pytest.raises(ClusterError, match="HOST:PORT"):
        list(score_on_cluster([], job, address))


LOCAL = """
import sys
from pathlib import Path
from chestxray.archive.cluster import score_on_cluster
from chestxray.archive.files import Walk, find
from chestxray.archive.scoring import Job, Part
from chestxray.assessment import Choices, named, read_bundles

archive = Path(sys.argv[1])
items = tuple(find(str(archive), Walk(archive / "rows.csv")))
job = Job(read_bundles([named(sys.argv[2])]), Choices())
for number, rows in score_on_cluster([Part(0, items)], job, "local"):
    print(number, len(rows), flush=True)
    sys.stdin.read()
"""


def test_local_is_on_loopback_alone_and_quiet_and_leaves_nothing(
    archive: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", LOCAL, archive, tiny_folder],
            env=environment | {"TMPDIR": folder, "HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            addresses = addresses_listened_at(process.pid)
            logs = [file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()]
            rest, complaints = process.communicate(timeout=60)
            wait_until(lambda: processes_of(process.pid) == [])
        finally:
            kill_session(process)
        assert list(Path(folder).glob("ray-*")) == []
    assert process.returncode == 0
    assert said.split() == [b"0", b"12"]
    assert (rest, complaints) == (b"", b"")
    assert addresses == {"127.0.0.1"}
    assert logs
    assert not any(b".jpeg" in log for log in logs), "a file's name lies in Ray's folder"
    assert not (home / ".ray").exists(), "Ray left its token"
