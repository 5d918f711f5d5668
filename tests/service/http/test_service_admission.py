"""Places are few, waits are bounded, and who goes away makes room."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import ClientDisconnect

from chestxray.errors import OverloadedError
from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http.admission import STUCK_AFTER_S, Admission, unless_gone
from chestxray.service.settings import Settings
from factories.requests import radiograph_png
from factories.servers import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Gate:
    """A job that begins, and ends only when told."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(30)
        return "done"


def make_admission(**settings: float) -> Admission:
    defaults = {"threads": 1, "queue_size": 1, "queue_timeout_s": 30, "max_buffered_bytes": 1000}
    return Admission(**defaults | settings)


@pytest.fixture
async def admission() -> AsyncIterator[Admission]:
    admission = make_admission()
    yield admission
    admission.close()


async def began(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.wait, 30)


async def test_jobs_give_their_results_in_order(admission: Admission) -> None:
    with admission.place() as place:
        assert await place.run([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]
    assert admission.in_flight == 0


async def test_beyond_the_queue_a_request_is_told_at_once(admission: Admission) -> None:
    with admission.place(), admission.place():
        with pytest.raises(OverloadedError) as caught, admission.place():
            pass
        assert caught.value.retry_after_s > 0
        assert admission.in_flight == 2
    with admission.place():
        pass


async def test_the_time_to_come_back_is_when_what_waits_now_will_be_done() -> None:
    admission = make_admission(threads=2, queue_size=0)
    with admission.place() as place:
        await place.run([lambda: time.sleep(0.05)] * 200)
        assert admission.overloaded("").retry_after_s == 1
        with admission.announced(400):
            # Two hundred jobs for each thread, of 0.05 s and a little more.
            assert 10 <= admission.overloaded("").retry_after_s <= 15
        assert admission.overloaded("").retry_after_s == 1
    admission.close()


async def test_bodies_take_no_more_memory_than_is_set_aside() -> None:
    admission = make_admission(queue_size=10, max_buffered_bytes=100)
    with admission.place() as first, admission.place(40) as second:
        first.buffer(60)
        second.buffer(40)
        with pytest.raises(OverloadedError):
            second.buffer(1)
        with pytest.raises(OverloadedError), admission.place(1):
            pass
        with admission.place():  # of unknown length
            pass
    assert admission.buffered_bytes == 0
    with admission.place(100) as third:
        third.buffer(100)


async def test_who_sends_slowly_gives_its_place_to_others_and_asks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chestxray.service.http.admission.SLOW_AFTER_S", 0.01)
    admission = make_admission(threads=1, queue_size=0)
    gate = Gate()
    with admission.place() as slow:
        with pytest.raises(OverloadedError), admission.place():
            pass
        await asyncio.sleep(0.05)
        with admission.place() as brisk:
            running = asyncio.ensure_future(brisk.run([gate]))
            await began(gate)
            with pytest.raises(OverloadedError):
                await slow.run([lambda: "too late"])
            gate.may_end.set()
            assert await running == ["done"]
        assert await slow.run([lambda: "at last"]) == ["at last"]
    assert admission.in_flight == 0
    admission.close()


async def test_a_job_that_was_dropped_before_it_began_frees_its_thread(
    admission: Admission,
) -> None:
    for _ in range(50):
        with admission.place() as place:
            dropped = asyncio.ensure_future(place.run([lambda: None] * 3))
            await asyncio.sleep(0)
            dropped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dropped
    with admission.place() as place:
        assert await place.run([lambda: "free"]) == ["free"]


async def test_a_wait_for_a_thread_that_is_too_long_ends() -> None:
    admission = make_admission(queue_size=5, queue_timeout_s=0.01)
    gate = Gate()
    with admission.place() as first, admission.place() as second:
        running = asyncio.ensure_future(first.run([gate]))
        await began(gate)
        with pytest.raises(OverloadedError):
            await second.run([lambda: "never"])
        gate.may_end.set()
        assert await running == ["done"]
        assert await second.run([lambda: "now"]) == ["now"]
    admission.close()


async def test_a_request_that_has_begun_is_finished_however_long_it_takes() -> None:
    admission = make_admission(threads=2, queue_size=0, queue_timeout_s=0.01)
    gates = [Gate() for _ in range(4)]
    with admission.place() as place:
        running = asyncio.ensure_future(place.run(gates))
        await asyncio.gather(began(gates[0]), began(gates[1]))
        await asyncio.to_thread(gates[2].begun.wait, 0.05)  # longer than the queue's bound
        for gate in gates:
            gate.may_end.set()
        assert await running == ["done"] * 4
    admission.close()


async def test_an_error_in_a_job_is_the_requests_and_frees_the_thread(admission: Admission) -> None:
    def fail() -> None:
        raise OverloadedError("from within", 1)

    with admission.place() as place:
        with pytest.raises(OverloadedError, match="from within"):
            await place.run([fail])
        assert await place.run([lambda: 1]) == [1]


async def test_a_job_whose_request_went_away_keeps_its_thread_until_it_ends(
    admission: Admission,
) -> None:
    gate = Gate()
    with admission.place() as gone, admission.place() as waiting:
        abandoned = asyncio.ensure_future(gone.run([gate]))
        await began(gate)
        abandoned.cancel()
        next_in_line = asyncio.ensure_future(waiting.run([lambda: "next"]))
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        assert not next_in_line.done()
        gate.may_end.set()
        assert await next_in_line == ["next"]


async def test_a_client_that_goes_away_cancels_its_waiting_work(admission: Admission) -> None:
    gate = Gate()
    left = asyncio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    never = Gate()
    with admission.place() as first:
        running = asyncio.ensure_future(first.run([gate]))
        await began(gate)
        with admission.place() as second:
            waiting = asyncio.ensure_future(unless_gone(receive, second.run([never])))
            left.set()
            with pytest.raises(ClientDisconnect):
                await waiting
        assert admission.in_flight == 1
        gate.may_end.set()
        await running
    with admission.place() as third:
        assert await third.run([lambda: "free"]) == ["free"]
    assert not never.begun.is_set()


class GatedPredictor(Predictor):
    """Waits at a gate before it answers as ``predictor`` does."""

    def __init__(self, predictor: Predictor, gate: Gate) -> None:
        self.__dict__.update(vars(predictor))
        self.gate = gate

    def predict(self, radiographs, operating_point=None):
        self.gate()
        return super().predict(radiographs, operating_point)


async def test_a_full_service_answers_429_with_retry_after_and_finishes_what_it_took(
    settings: Settings, predictor: Predictor
) -> None:
    gate = Gate()
    tight = settings.model_copy(update={"threads": 1, "queue_size": 0})
    app = create_app(tight, serving(GatedPredictor(predictor, gate)))
    transport = httpx.ASGITransport(app)
    files = {"file": ("a.png", radiograph_png())}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        taken = asyncio.ensure_future(client.post("/predict", files=files))
        await began(gate)
        refused = await client.post("/predict", files=files)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/livez")).status_code == 200  # the event loop is free
        gate.may_end.set()
        assert (await taken).status_code == 200
        assert (await client.post("/predict", files=files)).status_code == 200


async def test_threads_are_stuck_when_all_have_been_at_work_for_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admission, gates = make_admission(threads=2), [Gate(), Gate()]
    now_s = 0.0
    monkeypatch.setattr("chestxray.service.http.admission.time.monotonic", lambda: now_s)

    async def ask(gate: Gate) -> None:
        with admission.place() as place:
            await place.run([gate])

    first = asyncio.create_task(ask(gates[0]))
    await began(gates[0])
    now_s += STUCK_AFTER_S + 1
    assert not admission.stuck  # the other thread is free
    second = asyncio.create_task(ask(gates[1]))
    await began(gates[1])
    assert not admission.stuck  # and has only just begun
    now_s += STUCK_AFTER_S + 1
    assert admission.stuck
    gates[0].may_end.set()
    await first
    assert not admission.stuck
    gates[1].may_end.set()
    await second
    admission.close()


async def test_a_service_whose_threads_are_stuck_is_alive_and_not_ready(
    settings: Settings, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings, serving(predictor))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.get("/readyz")).status_code == 200
        monkeypatch.setattr(Admission, "stuck", True)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert (await client.get("/livez")).status_code == 200
    app.state.service.admission.close()
