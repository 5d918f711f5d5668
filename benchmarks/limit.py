"""The in-process limit: decode and predict on all cores, without HTTP.

In as many threads as cores and in as many processes as cores; the better of the two is the limit.

Does not: batch: a request is one radiograph.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from itertools import chain
from multiprocessing.synchronize import Barrier as ProcessBarrier
from pathlib import Path
from statistics import median
from threading import Barrier
from types import TracebackType
from typing import Self

from machine import CORES
from measurement import Laps, Row, p99_ms
from radiographs import Radiographs

from chestxray import imaging
from chestxray.inference import Predictor

THREADS = "limit: a thread for each core"
PROCESSES = "limit: a process for each core"
START_WITHIN_S = 60


class InProcessLimit:
    """The threads and the processes, ready; they take no time between measurements."""

    def __init__(self) -> None:
        _be_ready(Barrier(CORES))
        self._threads = ThreadPoolExecutor(CORES)
        context = multiprocessing.get_context("spawn")
        self._processes = ProcessPoolExecutor(
            CORES, mp_context=context, initializer=_be_ready, initargs=(context.Barrier(CORES),)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._threads.shutdown()
        self._processes.shutdown()

    def in_threads(self, files: Radiographs, seconds: float) -> Row:
        """Of a thread for each core, in this process."""
        cpu_s = time.process_time()
        laps = _on_all_cores(self._threads, files.paths, seconds)
        return _row(THREADS, files.kind, laps, time.process_time() - cpu_s)

    def in_processes(self, files: Radiographs, seconds: float) -> Row:
        """Of a process for each core."""
        laps = _on_all_cores(self._processes, files.paths, seconds)
        return _row(PROCESSES, files.kind, laps, sum(each.cpu_s for each in laps))


def _on_all_cores(pool: Executor, paths: tuple[Path, ...], seconds: float) -> list[Laps]:
    running = [
        pool.submit(_judge, paths, core * len(paths) // CORES, seconds) for core in range(CORES)
    ]
    return [each.result() for each in running]


# What a process has: a predictor that all of its threads share, and where all begin at once.
_predictor: Predictor
_start: Barrier | ProcessBarrier


def _be_ready(start: Barrier | ProcessBarrier) -> None:
    global _predictor, _start
    _predictor, _start = Predictor.load(), start


@cache
def _contents(paths: tuple[Path, ...]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def _judge(paths: tuple[Path, ...], first: int, seconds: float) -> Laps:
    """Decode and predict one file after the other, from ``first`` on, for ``seconds``."""
    contents = _contents(paths)
    shrink_to_px = _predictor.manifest.preprocessing.shrink_to_px
    at = first

    def judge() -> None:
        nonlocal at
        at = (at + 1) % len(contents)
        _predictor.predict([imaging.read(contents[at], shrink_to_px=shrink_to_px)])

    _start.wait(START_WITHIN_S)
    laps = Laps()
    laps.add(judge, seconds)
    return laps


def _row(what: str, kind: str, laps: Sequence[Laps], cpu_s: float) -> Row:
    wall_s = list(chain.from_iterable(each.wall_s for each in laps))
    return Row(
        "serving",
        what,
        kind,
        n=len(wall_s),
        per_s=sum(len(each.wall_s) / sum(each.wall_s) for each in laps),
        p50_ms=median(wall_s) * 1000,
        p99_ms=p99_ms(wall_s),
        cpu_ms=cpu_s / len(wall_s) * 1000,
    )
