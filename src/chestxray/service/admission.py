"""Who may come in and when: a bounded number of requests, and a bounded pool that does their work.

A request takes a *place* before its body is read; when all are taken it is told so at once. In its
place it waits for a thread, first come, first served, and not for ever. A request that goes away
gives its place back; a job that already runs ends first, then its thread is free.

Does not: know what the work is, or read bodies (``multipart``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from chestxray.errors import OverloadedError

T = TypeVar("T")

RETRY_AFTER_S = 1.0
"""About the time that a full queue of the default size takes to empty on two cores."""


class Admission:
    """The places and the threads of one process; used from its event loop only."""

    def __init__(self, *, threads: int, queue_size: int, queue_timeout_s: float) -> None:
        self.threads = threads
        self._places = threads + queue_size
        self._queue_timeout_s = queue_timeout_s
        self._taken = 0
        self._free_threads = asyncio.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    @property
    def in_flight(self) -> int:
        """How many requests have a place now."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one request.

        Raises:
            OverloadedError: all places are taken.
        """
        if self._taken >= self._places:
            raise OverloadedError("all places in the queue are taken", RETRY_AFTER_S)
        self._taken += 1
        try:
            yield Place(self, self._queue_timeout_s)
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Wait for the jobs that run, then end the threads."""
        self._executor.shutdown()

    async def wait_for_thread(self, timeout_s: float | None) -> None:
        """Reserve a thread, first come, first served.

        Raises:
            TimeoutError: none was free within ``timeout_s``.
        """
        async with asyncio.timeout(timeout_s):
            await self._free_threads.acquire()

    async def run_in_thread(self, job: Callable[[], T]) -> T:
        """Run ``job`` in a thread that was reserved, and give that back when the job ends."""
        loop = asyncio.get_running_loop()
        running = self._executor.submit(job)
        # The thread is free when the job ends, even if nobody waits for its result any more.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free_threads.release))
        return await asyncio.wrap_future(running)


class Place:
    """A request's place in the queue; see :meth:`Admission.place`."""

    def __init__(self, admission: Admission, queue_timeout_s: float) -> None:
        self._admission = admission
        self._queue_timeout_s = queue_timeout_s
        self._begun = False

    async def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """The results of ``jobs``, in their order, computed in the threads of the pool.

        A request never has more jobs waiting than there are threads, so a big batch does not stand
        before everyone else. Only the wait for its first thread is bounded: a request that has
        begun is finished.

        Raises:
            OverloadedError: no thread was free in time.
        """
        results: dict[int, T] = {}
        remaining = iter(enumerate(jobs))

        async def lane() -> None:
            for index, job in remaining:
                await self._wait_for_thread()
                results[index] = await self._admission.run_in_thread(job)

        n_lanes = min(self._admission.threads, len(jobs))
        lanes = [asyncio.ensure_future(lane()) for _ in range(n_lanes)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
        return [results[index] for index in range(len(jobs))]

    async def _wait_for_thread(self) -> None:
        try:
            await self._admission.wait_for_thread(None if self._begun else self._queue_timeout_s)
        except TimeoutError as exc:
            if not self._begun:
                raise OverloadedError("no thread was free in time", RETRY_AFTER_S) from exc
            await self._admission.wait_for_thread(None)  # another lane got its thread meanwhile
        self._begun = True


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client goes away first.

    ``receive`` is the request's, its body read to the end.

    Raises:
        ClientDisconnect: nobody waits for the result any more.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
