"""Scoring on a Ray cluster: parts go out, rows come back, whatever dies on the way.

Ray Data hands each part to an actor with predictors of its own; what a dead process or node took
with it is done again elsewhere. Only the bundles and the files' paths leave this process; the
actors read the files, so each node must see them under the same paths, and have the same
``chestxray``.

Does not: write rows (``work`` does), outlive the cluster's head (the same command goes on), or give
Ray a file's name or an error's text to log. Ray is imported when it is asked for.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import secrets
import socket
import tempfile
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import chestxray
from chestxray.archive.rows import Row
from chestxray.archive.scoring import Job, Part, Scorer
from chestxray.errors import ChestXrayError, ClusterError

if TYPE_CHECKING:
    import ray

PARTS_PER_CPU = 32
"""Parts in a wave. Actors start anew in each, which takes seconds, and its last parts leave some of
them idle; a part takes seconds too, so with this many neither counts."""

STALL_TIMEOUT_S = 30 * 60
"""For so long no part may get done. What dies is done again without a limit, so this is what ends
a run with a file that kills every process that takes it."""

CONNECT_TIMEOUT_S = 10
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of gRPC says first, with an empty frame of settings (RFC 9113, 3.4)."""
HTTP2_SETTINGS = 4
"""Type of the frame that every server answers it with, in its fourth of nine bytes."""
LONGEST_TEXT = 300

Answer = tuple[int, list[list[Row]]]
"""A part's number and the rows of each of its files."""


def score_on_cluster(parts: Iterable[Part], job: Job, address: str) -> Iterator[Answer]:
    """Each part's number and rows, a list for each file, once, in whatever order they get done.

    ``address`` is ``local`` (a Ray of this process's own, on this machine's cores) or, on a machine
    of a cluster, ``auto`` or its head's ``HOST:PORT``. ``parts`` may be of any length: it is gone
    through in waves.

    Raises:
        ClusterError: no cluster answers at ``address``, its nodes fail for good, or have another
            version of chestxray.
        BundleError: a bundle of the job does not run on a node.
        ModuleNotFoundError: Ray is not installed.
    """
    with _connected(address):
        import ray  # noqa: PLC0415

        here = os.getcwd()  # noqa: PTH109 - names are strings all the way into the rows
        with _translated("the cluster fails"):
            job_ref = ray.put((chestxray.__version__, here, job))
        waiting = iter(parts)
        while True:
            with _translated("the cluster fails"):
                n_cpus = max(1, int(ray.cluster_resources().get("CPU", 0)))
            wave = list(islice(waiting, n_cpus * PARTS_PER_CPU))
            if not wave:
                return
            yield from _score_wave(wave, job_ref, n_cpus)


def _score_wave(wave: list[Part], job_ref: ray.ObjectRef[Any], n_cpus: int) -> Iterator[Answer]:
    missing = {part.number for part in wave}
    with closing(_answers(wave, job_ref, n_cpus)) as answers:
        for number, rows in answers:
            if number in missing:
                missing.remove(number)
                yield number, rows
    if missing:
        raise ClusterError(f"the cluster lost {len(missing)} parts of the archive")


def _answers(wave: list[Part], job_ref: ray.ObjectRef[Any], n_cpus: int) -> Generator[Answer]:
    import ray.data  # noqa: PLC0415

    dataset = ray.data.from_items(
        [{"part": pickle.dumps(part)} for part in wave], override_num_blocks=len(wave)
    ).map_batches(
        _Actor,
        fn_constructor_args=(job_ref,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=n_cpus,
            initial_size=min(n_cpus, len(wave)),
            max_tasks_in_flight_per_actor=2,  # one is at work, one waits
        ),
        num_cpus=1,
    )
    # Closed whatever ends this, and no thread fetches ahead: where one of Ray Data's threads is
    # still at work when Ray is shut down, Ray ends this process without a word.
    batches = iter(dataset.iter_batches(batch_size=1, prefetch_batches=0))
    with _translated("the cluster fails"), closing(batches):
        for batch in batches:
            answer = pickle.loads(batch["answer"][0])  # noqa: S301 - from our own actor
            if isinstance(answer, ChestXrayError):
                raise answer
            yield answer


class _Actor:
    """Scores parts in a process of the cluster.

    What goes wrong is an answer, too: an exception's text would stand in Ray's logs.
    """

    def __init__(self, job_ref: ray.ObjectRef[Any]) -> None:
        import ray  # noqa: PLC0415

        self._version, self._here, self._job = ray.get(job_ref)
        self._scorer: Scorer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        part: Part = pickle.loads(batch["part"][0])  # noqa: S301 - from `_answers`
        return {"answer": [pickle.dumps(self._answer(part))]}

    def _answer(self, part: Part) -> Answer | ChestXrayError:
        if chestxray.__version__ != self._version:
            return ClusterError(
                f"a node has chestxray {chestxray.__version__}, and this machine {self._version}"
            )
        try:
            if self._scorer is None:
                self._scorer = Scorer(self._job, threads=1)
            rows = self._scorer.rows(_beneath(self._here, part))
            return part.number, [
                [row._replace(path=item.path) for row in of_file]
                for item, of_file in zip(part.items, rows, strict=True)
            ]
        except ChestXrayError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001 - the last resort: its text may hold a file's name
            return ClusterError(f"a node fails with {type(exc).__name__}")


def _beneath(folder: str, part: Part) -> Part:
    """The part with names that do not depend on the current directory, which is not a node's."""

    def absolute(name: str) -> str:  # not `abspath`, since `..` behind a link leads elsewhere
        return os.path.join(folder, name)  # noqa: PTH118

    items = (
        replace(item, path=absolute(item.path), container=absolute(item.container))
        for item in part.items
    )
    return replace(part, items=tuple(items))


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Ray in this process, at ``address``, and quiet; gone afterwards."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of the half that is not Python
        if address == "local":
            folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
            options |= _own_cluster(stack.enter_context(folder))
        else:
            _knock(address)
        import ray  # noqa: PLC0415

        with _translated(f"no Ray cluster can be used at {address}", with_text=True):
            with _stderr_discarded():  # which tells of the level above
                ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
            stack.callback(ray.shutdown)
            _quieten()
        yield


def _own_cluster(folder: str) -> dict[str, Any]:
    """Options for a cluster of this process's own, on loopback, that only this user can reach.

    Its logs and sockets go into ``folder``, whose name must be short: a socket's path has 107 bytes
    at most. Ray reads its environment when it is imported, so this must come before.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray makes of 127.0.0.1 the machine's address, unless it is told, as on Windows, that there
    # are no other machines.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Another user of this machine reaches loopback, and a cluster runs anybody's code. Without a
    # token of ours Ray would leave one in the home folder for all to read.
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}


def _knock(address: str) -> None:
    """Find out within seconds whether a head may listen at HOST:PORT.

    Ray tries for over a minute where nothing does, and for ever where something else does.

    Raises:
        ClusterError: none does, or it is no address.
    """
    if address == "auto":
        return
    parts = re.fullmatch(r"(.+):(\d+)", address)
    if parts is None or "/" in address:
        raise ClusterError("the address of a Ray cluster is local, auto or HOST:PORT")
    try:
        with socket.create_connection((parts[1], int(parts[2])), CONNECT_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.sendall(HTTP2_PREFACE)
            answer = connection.makefile("rb").read(9)
    except (OSError, OverflowError) as exc:
        raise ClusterError(f"nothing answers at {address}") from exc
    if answer[3:4] != bytes((HTTP2_SETTINGS,)):
        raise ClusterError(f"what answers at {address} is not the head of a Ray cluster")


def _quieten() -> None:
    import ray.data  # noqa: PLC0415

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        # Ray Data warns of its own defaults as it sets them.
        warnings.filterwarnings("ignore", "`use_", DeprecationWarning)
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Processes that die are started again, and their parts done again, without a limit; that is
    # Ray Data's default, and so is giving up when one cannot take the job: for instance since
    # chestxray is missing.
    context.execution_no_progress_timeout_s = STALL_TIMEOUT_S


@contextmanager
def _stderr_discarded() -> Iterator[None]:
    """Drop what this process writes to stderr, by whatever library."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _translated(what: str, *, with_text: bool = False) -> Iterator[None]:
    """Ray's exceptions → ClusterError; their texts are long, and of work also hold names."""
    from ray.data.exceptions import ExecutionTimeoutError, SystemException  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    try:
        yield
    except ExecutionTimeoutError as exc:
        raise ClusterError("the cluster got no part of the archive done for too long") from exc
    except (RayError, SystemException, OSError, RuntimeError, ValueError) as exc:
        why = " ".join(str(exc).split())[:LONGEST_TEXT] if with_text else type(exc).__name__
        raise ClusterError(f"{what}: {why}") from exc
