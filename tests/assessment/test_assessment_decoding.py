"""Files that are decoded at the same time share a budget of memory."""

import ctypes
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chestxray.assessment import MemoryBudget


class Worker:
    """A thread that has a share from ``begun`` until it ``may_end``."""

    def __init__(self, budget: MemoryBudget, n_bytes: int) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, args=(budget, n_bytes))
        self._thread.start()

    def _work(self, budget: MemoryBudget, n_bytes: int) -> None:
        with budget.share(n_bytes):
            self.begun.set()
            self.may_end.wait(30)

    def end(self) -> None:
        self.may_end.set()
        self._thread.join(30)


def waits(worker: Worker) -> bool:
    return not worker.begun.wait(0.05)


def test_files_that_have_room_together_do_not_wait():
    budget = MemoryBudget(100)
    with budget.share(60), budget.share(40):
        pass


def test_a_file_waits_until_there_is_room_for_it():
    budget = MemoryBudget(100)
    first, second = Worker(budget, 60), None
    assert first.begun.wait(30)
    second = Worker(budget, 41)
    assert waits(second)
    first.end()
    assert second.begun.wait(30)
    second.end()


def test_a_file_that_needs_more_than_all_is_alone():
    budget = MemoryBudget(100)
    small = Worker(budget, 1)
    assert small.begun.wait(30)
    large = Worker(budget, 1000)
    assert waits(large)
    small.end()
    assert large.begun.wait(30)
    other = Worker(budget, 1)
    assert waits(other)
    large.end()
    assert other.begun.wait(30)
    other.end()


def test_a_large_file_is_not_passed_by_small_ones_for_ever():
    budget = MemoryBudget(100)
    first = Worker(budget, 50)
    assert first.begun.wait(30)
    large = Worker(budget, 100)
    assert waits(large)
    small = Worker(budget, 10)
    assert waits(small)
    first.end()
    assert large.begun.wait(30)
    assert waits(small)
    large.end()
    assert small.begun.wait(30)
    small.end()


def test_what_goes_wrong_gives_its_share_back():
    budget = MemoryBudget(100)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), budget.share(100):
            raise ValueError("broken")


def test_no_more_is_shared_than_there_is():
    budget, held, most = MemoryBudget(100), 0, 0
    lock = threading.Lock()

    def work(n_bytes: int) -> None:
        nonlocal held, most
        with budget.share(n_bytes):
            with lock:
                held += n_bytes
                most = max(most, held)
            with lock:
                held -= n_bytes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [7, 30, 99, 1, 50, 51, 100, 3] * 50))
    assert 0 < most <= 100
    assert held == 0


PROGRAM = """
import ctypes, re, sys
from pathlib import Path
import numpy as np
from chestxray.assessment.decoding import GIVEN_BACK_BYTES, MemoryBudget

def resident_mb():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000

budget = MemoryBudget(GIVEN_BACK_BYTES)
np.ones(2_000_000)  # 16 MB, and so much is kept from now on
before, pictures, between = resident_mb(), [], []
with budget.share(GIVEN_BACK_BYTES):
    for _ in range(20):
        pictures.append(np.ones(1_000_000))
        between.append(bytes(100_000))
    held = resident_mb()
    pictures.clear()
print(held - before, resident_mb() - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None) if sys.platform == "linux" else None, "malloc_trim"),
    reason="what glibc frees",
)
def test_the_memory_that_a_large_file_took_is_given_back():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    held_mb, kept_mb = map(float, ran.stdout.split())
    assert held_mb > 150
    assert kept_mb < 20
