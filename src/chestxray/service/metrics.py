"""What Prometheus is told: counts, timings and the state of the queue, right across workers.

One process keeps its figures in memory. Several write them to files that they share
(:func:`metrics_folder`; prometheus_client's multiprocess mode), so that each of them can tell the
sum over all: what workers counted that died stays in it (:func:`forget_worker`), gauges are those
of the living.

Does not: decide what is counted when (``api`` and ``http`` do), keep anything beyond the last
worker's end, or bound its labels: a caller passes route templates, codes and names from the
settings and the manifest, never what a client typed.
"""

# The library's types end where its multiprocess mode begins.
# mypy: untyped-calls-exclude="prometheus_client"

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from chestxray.errors import ConfigError

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's: read when it is imported, so a worker is started with it."""

Stage = Literal["receive", "wait", "open", "decode", "infer", "render"]
"""From the body's first byte to its last; for a thread; to what a file says of itself; to pixels;
the network; pictures."""

REQUEST_BUCKETS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08),
    *(0.12, 0.17, 0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 20.0),
)
STAGE_BUCKETS_S = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04),
    *(0.06, 0.08, 0.12, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
)
SHARE_BUCKETS = tuple(step / 20 for step in range(1, 21))
"""For what lies in [0, 1]."""
DIFFERENCE_BUCKETS = (
    *(-0.9, -0.7, -0.5, -0.3, -0.2, -0.1, -0.05, -0.02, -0.01, -0.001),
    *(0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0),
)
"""For the difference of two probabilities: from -0.001 to 0.001 they are as good as equal."""

DEATHS, DEATHS_HELP = "chestxray_worker_deaths", "Worker processes that died and were replaced."

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

PROCESS_INTERVAL_S = 1.0
"""Least time between two looks at a process's own memory and processor time."""


class Metrics:
    """The figures of one process; with those of all workers, where there is a folder to share.

    All methods may be called from any thread. In a shared folder there must be one instance per
    process; without one, every instance counts for itself.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # only one process alone would have them
        registry = CollectorRegistry()
        self._exposed = registry
        if FOLDER_VARIABLE in os.environ:
            _shared_folder()
            self._exposed = CollectorRegistry()
            self._exposed.register(_AllWorkers())
        self._requests = Counter(
            "chestxray_requests_total",
            "Answered requests.",
            ("route", "status", "key"),
            registry=registry,
        )
        self._request_durations = Histogram(
            "chestxray_request_duration_seconds",
            "From a request's first byte to its answer.",
            ("route",),
            buckets=REQUEST_BUCKETS_S,
            registry=registry,
        )
        stage_durations = Histogram(
            "chestxray_stage_duration_seconds",
            "Time spent in a stage.",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._stages = {name: stage_durations.labels(name) for name in get_args(Stage)}
        self._predictions = Counter(
            "chestxray_predictions_total",
            "Radiographs answered.",
            ("model", "label", "operating_point", "uncertain"),
            registry=registry,
        )
        self._problems = Counter(
            "chestxray_problems_total",
            "Problems given, those in batches included.",
            ("code",),
            registry=registry,
        )
        self._problems.labels("internal_error")  # from 0, so that the first one is an increase
        self._probabilities = Histogram(
            "chestxray_probability",
            "Calibrated probability of the model's finding.",
            ("model",),
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self._input_check_scores = Histogram(
            "chestxray_input_check_score",
            "Score of the input check, refused radiographs included.",
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self._waiting = Gauge(
            "chestxray_queue_waiting",
            "Requests that wait for a thread.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._in_flight = Gauge(
            "chestxray_requests_in_flight",
            "Requests that have a place.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._buffered = Gauge(
            "chestxray_buffered_bytes",
            "Request bodies in memory.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._bundle = Gauge(
            "chestxray_bundle_info",
            "1 for a bundle at work, 0 for one that was replaced; role is answers or shadow.",
            ("name", "role", "bundle_sha256", "version"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._bundles: set[tuple[str, str, str, str]] = set()
        self._reloads = Counter(
            "chestxray_bundle_reloads_total",
            "Times that the bundles were to be replaced.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("replaced", "failed"):
            self._reloads.labels(outcome)  # from 0, so that the first one is an increase
        self._shadow_assessments = Counter(
            "chestxray_shadow_assessments_total",
            "Radiographs that a shadow assessed too, by the default's label and the shadow's.",
            ("shadow", "operating_point", "label", "shadow_label"),
            registry=registry,
        )
        self._shadow_differences = Histogram(
            "chestxray_shadow_probability_difference",
            "A shadow's probability minus the default's.",
            ("shadow",),
            buckets=DIFFERENCE_BUCKETS,
            registry=registry,
        )
        self._shadows_failed = Counter(
            "chestxray_shadow_failed_total",
            "Requests that a shadow failed on, which is logged.",
            registry=registry,
        )
        self._shadows_skipped = Counter(
            "chestxray_shadow_skipped_total",
            "Requests that shadows were to assess, and for which there was no room.",
            registry=registry,
        )
        self._resident_memory = Gauge(
            "chestxray_resident_memory_bytes",
            "Memory that a worker has resident.",
            multiprocess_mode="liveall",  # with a label pid: the largest matters, not only the sum
            registry=registry,
        )
        self._processor_time = Counter(
            "chestxray_cpu_seconds_total",
            "Processor time used by the workers.",
            registry=registry,
        )
        Counter(DEATHS, DEATHS_HELP, registry=registry)  # from 0; counted by forget_worker
        self._process_lock = threading.Lock()
        self._process_seen_s = 0.0
        self._next_look_s = 0.0
        self._look_at_process()

    def request(self, *, route: str, status: int, key: str, duration_s: float) -> None:
        """Count an answered request.

        ``route`` is a route's template or ``other``; ``key`` the name of the API key, or empty.
        """
        self._requests.labels(route, status, key).inc()
        self._request_durations.labels(route).observe(duration_s)
        self._look_at_process()

    def stage(self, name: Stage) -> AbstractContextManager[object]:
        """Times a stage, also one that ends in an error."""
        return self._stages[name].time()

    def observe_stage(self, name: Stage, duration_s: float) -> None:
        """Note a stage that was timed elsewhere."""
        self._stages[name].observe(duration_s)

    def predicted(
        self,
        *,
        model: str,
        label: str,
        operating_point: str,
        uncertain: bool,
        probability: float,
        input_check_score: float,
    ) -> None:
        """Count an answered radiograph; ``probability`` and ``input_check_score`` in [0, 1]."""
        certainty = "true" if uncertain else "false"
        self._predictions.labels(model, label, operating_point, certainty).inc()
        self._probabilities.labels(model).observe(probability)
        self._input_check_scores.observe(input_check_score)

    def refused(self, code: str, input_check_score: float | None = None) -> None:
        """Count a problem; one that the input check gave comes with its score in [0, 1]."""
        self._problems.labels(code).inc()
        if input_check_score is not None:
            self._input_check_scores.observe(input_check_score)

    def set_queue(self, *, waiting: int, in_flight: int, buffered_bytes: int) -> None:
        """This worker's queue as it is now; call it whenever one of the three changes."""
        self._waiting.set(waiting)
        self._in_flight.set(in_flight)
        self._buffered.set(buffered_bytes)

    def set_bundles(self, bundles: Iterable[tuple[str, str, str, str]]) -> None:
        """The bundles that this worker has at work: name, role, SHA-256, the package's version."""
        at_work = set(bundles)
        for bundle in self._bundles | at_work:
            # Not removed: in a folder that workers share nothing can be.
            self._bundle.labels(*bundle).set(bundle in at_work)
        self._bundles |= at_work

    def reloaded(self, *, replaced: bool) -> None:
        """Count that the bundles were to be replaced, and whether they were."""
        self._reloads.labels("replaced" if replaced else "failed").inc()

    def shadowed(self, *, shadow: str, operating_point: str, label: str, shadow_label: str) -> None:
        """Count a radiograph that a shadow assessed; a label is one of the finding's or refused."""
        self._shadow_assessments.labels(shadow, operating_point, label, shadow_label).inc()

    def shadow_differed(self, *, shadow: str, difference: float) -> None:
        """Note the difference, in [-1, 1], of two answers' probabilities."""
        self._shadow_differences.labels(shadow).observe(difference)

    def shadow_failed(self) -> None:
        """Count a request that a shadow failed on."""
        self._shadows_failed.inc()

    def shadow_skipped(self) -> None:
        """Count a request that no shadow assesses, since too many are waiting."""
        self._shadows_skipped.inc()

    def exposition(self) -> tuple[bytes, str]:
        """The body and the content type of an answer to Prometheus. Takes milliseconds."""
        self._look_at_process()
        return generate_latest(self._exposed), CONTENT_TYPE_PLAIN_0_0_4

    def _look_at_process(self) -> None:
        # Not at exposition alone: that is answered by one worker of several.
        with self._process_lock:
            now_s = time.monotonic()
            if now_s < self._next_look_s:
                return
            self._next_look_s = now_s + PROCESS_INTERVAL_S
            used_s = time.process_time()
            self._processor_time.inc(used_s - self._process_seen_s)
            self._process_seen_s = used_s
            self._resident_memory.set(_resident_memory_bytes())


@contextmanager
def metrics_folder() -> Iterator[None]:
    """A folder for the figures of the workers that are started meanwhile; removed at the end.

    Raises:
        ConfigError: no folder can be made.
    """
    # In memory if there is such a place: a full disk would kill a process that writes to a mapped
    # file, and a slow one would hold it up.
    in_memory = "/dev/shm"  # noqa: S108 - mkdtemp makes a folder of an unforeseeable name in it
    where = in_memory if os.access(in_memory, os.W_OK) else None
    try:
        folder = tempfile.mkdtemp(prefix="chestxray-metrics-", dir=where)
    except OSError as exc:
        raise ConfigError(f"no folder can be made for the metrics: {exc.strerror}") from exc
    os.environ[FOLDER_VARIABLE] = folder
    try:
        yield
    finally:
        remove_metrics_folder()
        del os.environ[FOLDER_VARIABLE]


def remove_metrics_folder() -> None:
    """Remove the folder; who still counts counts on, and nobody is told any more."""
    shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)


def forget_worker(pid: int) -> None:
    """Count a worker's death, drop its gauges, and add its counts to those of all the dead.

    Its files would otherwise stay, and each is read for every exposition. To be called by whoever
    opened :func:`metrics_folder`, in that process, when the worker has ended out of turn.
    """
    with _locked_folder() as folder:
        mark_process_dead(pid, str(folder))
        counts = [(mmap_key(DEATHS, f"{DEATHS}_total", [], [], DEATHS_HELP), 1.0)]
        _add(counts, folder / "counter_dead.db")
        for kind in ("counter", "histogram"):
            left = folder / f"{kind}_{pid}.db"
            if _begun(left):
                samples = MmapedDict.read_all_values_from_file(left)
                _add([(key, value) for key, value, *_ in samples], folder / f"{kind}_dead.db")
            left.unlink(missing_ok=True)


def _add(counts: list[tuple[str, float]], file: Path) -> None:
    """Add to what a file in prometheus_client's format holds under the same keys."""
    held = MmapedDict(str(file))
    for key, value in counts:
        held.write_value(key, held.read_value(key)[0] + value, 0.0)
    held.close()


class _AllWorkers(Collector):
    """The figures of all workers, from their files."""

    def collect(self) -> Iterable[Metric]:
        with _locked_folder() as folder:
            files = [str(file) for file in folder.glob("*.db") if _begun(file)]
            summed: Iterable[Metric] = MultiProcessCollector.merge(files)
            return summed


def _begun(file: Path) -> bool:
    """Whether there is anything in a worker's file: it is empty for a moment when it is new."""
    return file.exists() and file.stat().st_size > 0


def _shared_folder() -> Path:
    """Made anew if it was tidied away, as systemd does when a user logs out (``RemoveIPC``)."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _locked_folder() -> Iterator[Path]:
    """The shared folder, while no other process sums up or moves a dead worker's counts."""
    folder = _shared_folder()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def _resident_memory_bytes() -> int:
    """What of this process is in memory; 0 where the kernel does not tell in ``/proc``."""
    statm = _statm()
    return 0 if statm is None else int(os.pread(statm, 256, 0).split()[1]) * PAGE_BYTES


@cache
def _statm() -> int | None:
    """A descriptor that stays open: who may open no more files must still be able to count."""
    file = Path("/proc/self/statm")
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC) if file.exists() else None
