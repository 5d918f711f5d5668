"""Who may come in and when: a bounded queue, a bounded amount of bytes, a bounded pool of threads.

A request takes a *place* before its body is read; when all are taken it is told so at once. In its
place it waits for a thread, first come, first served, and not for ever. A request that goes away
gives its place back; a job that already runs ends first, then its thread is free. Who sends slowly
gives its place to others meanwhile, so that a few slow senders cannot fill the queue.

Does not: know what the work is, or read bodies (``multipart``).
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from chestxray.errors import OverloadedError

T = TypeVar("T")

STUCK_AFTER_S = 30.0
"""No job takes so long on a machine that is fit to serve; the dearest that are let in take seconds
of one core."""

SLOW_AFTER_S = 2.0
"""A sender that takes longer than this has no place in the queue until its body is there."""

FIRST_JOB_S = 0.05
"""What a job is thought to take until the first has shown it: about a large JPEG on one core."""

SMOOTHING = 0.05
"""Weight of the newest job in the moving mean of what a job takes: that of the last forty."""


class Admission:
    """The places, the buffered bytes and the threads of one process; used from its event loop.

    ``waited`` is told how many seconds a request waited for its first thread.
    """

    def __init__(
        self,
        *,
        threads: int,
        queue_size: int,
        queue_timeout_s: float,
        max_buffered_bytes: int,
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.threads = threads
        self.in_flight = 0
        """Requests that have come in and are not answered."""
        self.waiting = 0
        """Requests whose body is there and for which no thread has been free yet."""
        self.buffered_bytes = 0
        """What is in memory of all bodies and long answers together."""
        self._places = threads + queue_size
        self._taken = 0
        self._queue_timeout_s = queue_timeout_s
        self._max_buffered_bytes = max_buffered_bytes
        self._waited = waited
        self._jobs = 0
        self._job_s = FIRST_JOB_S
        self._begun_s: dict[Future[Any], float] = {}  # of the jobs that run, on the monotonic clock
        self._free_threads = asyncio.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    @contextmanager
    def place(self, body_bytes: int = 0) -> Iterator[Place]:
        """A place for one request, whose body will have ``body_bytes`` as far as is known.

        Raises:
            OverloadedError: all places are taken, or so many bytes would be too many.
        """
        self._check_memory(body_bytes)
        place = Place(self)
        self.in_flight += 1
        try:
            yield place
        finally:
            place.close()
            self.in_flight -= 1

    @property
    def stuck(self) -> bool:
        """Whether all threads have been at work for so long that none may ever be free again."""
        begun_s = list(self._begun_s.values())
        return len(begun_s) >= self.threads and time.monotonic() - max(begun_s) > STUCK_AFTER_S

    def close(self) -> None:
        """Wait for the jobs that run, then end the threads."""
        self._executor.shutdown()

    def overloaded(self, message: str) -> OverloadedError:
        """The error with an honest time to come back: when what is waiting now will be done."""
        return OverloadedError(message, max(1, math.ceil(self._jobs * self._job_s / self.threads)))

    def check_room(self) -> None:
        """Raises OverloadedError when all places are taken."""
        if self._taken >= self._places:
            raise self.overloaded("all places in the queue are taken")

    def take_place(self) -> None:
        """Raises OverloadedError when all places are taken."""
        self.check_room()
        self._taken += 1

    def give_place_back(self) -> None:
        self._taken -= 1

    def buffer(self, n_bytes: int) -> None:
        """Count bytes that are kept (or, negative, no longer kept) in memory.

        Raises:
            OverloadedError: they are too many; they are not counted then.
        """
        self._check_memory(n_bytes)
        self.buffered_bytes += n_bytes

    def _check_memory(self, n_bytes: int) -> None:
        if self.buffered_bytes + n_bytes > self._max_buffered_bytes:
            raise self.overloaded("the bodies of other requests take all memory set aside for them")

    @contextmanager
    def keeping(self, n_bytes: int) -> Iterator[None]:
        """Count an answer that its client is still taking; there is less room for bodies then."""
        self.buffered_bytes += n_bytes
        try:
            yield
        finally:
            self.buffered_bytes -= n_bytes

    @contextmanager
    def announced(self, n_jobs: int) -> Iterator[Callable[[], None]]:
        """Count jobs to be done; call what is given once for each that is done."""
        left = n_jobs
        self._jobs += n_jobs

        def done() -> None:
            nonlocal left
            left -= 1
            self._jobs -= 1

        try:
            yield done
        finally:
            self._jobs -= left

    async def wait_for_first_thread(self) -> None:
        """Reserve a thread, first come, first served, in a bounded time.

        Raises:
            OverloadedError: none was free in time.
        """
        begun = time.monotonic()
        self.waiting += 1
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await self._free_threads.acquire()
        except TimeoutError as exc:
            raise self.overloaded("no thread was free in time") from exc
        finally:
            self.waiting -= 1
            self._waited(time.monotonic() - begun)

    async def wait_for_thread(self) -> None:
        """Reserve one more thread, however long it takes."""
        await self._free_threads.acquire()

    async def run_in_thread(self, job: Callable[[], T]) -> T:
        """Run ``job`` in a thread that was reserved, and give that back when the job ends."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()  # the request's id is known in the thread, too

        def timed() -> T:
            begun = time.monotonic()
            try:
                return context.run(job)
            finally:
                loop.call_soon_threadsafe(self._learn, time.monotonic() - begun)

        def free(ended: Future[T]) -> None:
            del self._begun_s[ended]
            self._free_threads.release()

        running = self._executor.submit(timed)
        self._begun_s[running] = time.monotonic()
        # The thread is free when the job ends, even if nobody waits for its result any more.
        running.add_done_callback(lambda ended: loop.call_soon_threadsafe(free, ended))
        return await asyncio.wrap_future(running)

    def _learn(self, job_s: float) -> None:
        self._job_s += SMOOTHING * (job_s - self._job_s)


class Place:
    """A request's place; see :meth:`Admission.place`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._buffered_bytes = 0
        self._held = False
        self._take()
        self._slow = asyncio.get_running_loop().call_later(SLOW_AFTER_S, self._give_back)

    def buffer(self, n_bytes: int) -> None:
        """Count bytes of the body that are kept in memory until the request is answered.

        Raises:
            OverloadedError: all bodies together are too large.
        """
        self._admission.buffer(n_bytes)
        self._buffered_bytes += n_bytes

    async def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """The results of ``jobs``, in their order, computed in the threads of the pool.

        A request never has more jobs waiting than there are threads, so a big batch does not stand
        before everyone else. Only the wait for its first thread is bounded: a request that has
        begun is finished.

        Raises:
            OverloadedError: the place was given to others and none is free, or no thread was free
                in time.
        """
        self._slow.cancel()
        self._take()
        results: dict[int, T] = {}
        remaining = iter(enumerate(jobs))

        async def lane() -> None:
            for index, job in remaining:
                await self._admission.wait_for_thread()
                results[index] = await self._admission.run_in_thread(job)
                done()

        with self._admission.announced(len(jobs)) as done:
            await self._admission.wait_for_first_thread()
            first_index, first_job = next(remaining)
            lanes = [
                asyncio.ensure_future(lane())
                for _ in range(min(self._admission.threads, len(jobs)) - 1)
            ]
            try:
                results[first_index] = await self._admission.run_in_thread(first_job)
                done()
                await asyncio.gather(lane(), *lanes)
            finally:
                for task in lanes:
                    task.cancel()
        return [results[index] for index in range(len(jobs))]

    def close(self) -> None:
        """Give everything back."""
        self._slow.cancel()
        self._give_back()
        self._admission.buffer(-self._buffered_bytes)
        self._buffered_bytes = 0

    def _take(self) -> None:
        if not self._held:
            self._admission.take_place()
            self._held = True

    def _give_back(self) -> None:
        if self._held:
            self._admission.give_place_back()
            self._held = False


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
