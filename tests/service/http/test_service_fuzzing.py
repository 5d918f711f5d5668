"""Mutated images, forms and requests over real connections: a problem with a known code, never 500.

The same mutants as in the committed long run (benchmarks/fuzzing.py), fewer and of another seed,
and with a short time for bodies, since many of them break off. What a run finds is kept as bytes in
tests/service/api/test_service_bad_input.py.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from chestxray.imaging import Limits
from chestxray.service.app import create_app
from chestxray.service.http.multipart import BodyLimits, read_uploads
from chestxray.service.settings import Settings
from factories.exchanges import Connection, exchange, upload
from factories.hostile_requests import FORM, FRAMING, REQUEST, form_mutant, request_mutant
from factories.mutations import Mutant, corpus, image_mutant
from factories.oracles import (
    WHOLE_ANSWER,
    assert_answers_reading,
    outcome_of_answer,
    outcome_of_reading,
    parsed_json,
    target_for,
)
from factories.requests import radiograph_png
from factories.servers import served

SEED = 4
N_IMAGES, N_BATCHES, N_FORMS, N_REQUESTS, N_SHIPPED = 1500, 30, 2000, 1200, 60
FILES_PER_BATCH = 16
GOOD = radiograph_png()
LIMITS = Limits(max_bytes=300_000, max_pixels=2_000_000)


@pytest.fixture(scope="module")
def port(tiny_bundle: Path) -> Iterator[int]:
    """The port of a server with small limits and little patience."""
    settings = Settings(
        bundle=tiny_bundle,
        threads=2,
        queue_size=200,
        max_file_bytes=LIMITS.max_bytes,
        max_pixels=LIMITS.max_pixels,
        body_timeout_s=0.5,
    )
    with served(create_app(settings)) as client:
        yield client.base_url.port or 0


@pytest.fixture(autouse=True)
def _answers_as_before(port: int) -> Iterator[None]:
    """Whatever a test sends: a good radiograph gets the same answer before and after."""
    before = answer_to_good(port)
    yield
    assert answer_to_good(port) == before


def answer_to_good(port: int) -> bytes:
    with Connection(port) as connection:
        answer = connection.ask(upload(WHOLE_ANSWER, [("a.png", GOOD)]))
    assert answer.status == 200
    return answer.body


def each(judge: Callable[[Mutant], list[str]], mutants: list[Mutant], threads: int) -> Counter[str]:
    """What ``judge`` says of the mutants, counted; a failure names its mutant."""

    def judged(index: int) -> list[str]:
        try:
            return judge(mutants[index])
        except Exception as exc:
            exc.add_note(f"mutant {index} of seed {SEED}: {mutants[index].operators}")
            raise

    with ThreadPoolExecutor(threads) as pool:
        return Counter(
            outcome for outcomes in pool.map(judged, range(len(mutants))) for outcome in outcomes
        )


def uploaded(port: int, limits: Limits, mutant: Mutant) -> list[str]:
    with Connection(port) as connection:
        answer = connection.ask(upload(target_for(mutant.data), [("a.png", mutant.data)]))
    assert_answers_reading(answer, outcome_of_reading(mutant.data, limits))
    return [outcome_of_answer(answer)]


def test_a_mutated_image_gets_what_reading_it_says(port: int) -> None:
    mutants = [image_mutant(SEED, index) for index in range(N_IMAGES)]
    outcomes = each(partial(uploaded, port, LIMITS), mutants, threads=4)
    assert {"200", "422 not_a_chest_radiograph", "400 damaged_file"} <= set(outcomes)


def test_mutated_images_in_a_batch_cost_only_themselves(port: int) -> None:
    with Connection(port) as connection:
        alone = parsed_json(connection.ask(upload("/predict", [("good", GOOD)])).body)
        for batch in range(N_BATCHES):
            first = batch * (FILES_PER_BATCH - 1)
            files = [image_mutant(SEED, first + i).data for i in range(FILES_PER_BATCH - 1)]
            files.insert(batch % FILES_PER_BATCH, GOOD)
            named = [(str(number), data) for number, data in enumerate(files)]
            answer = connection.ask(upload("/predict_batch", named))
            assert outcome_of_answer(answer) == "200"
            results = parsed_json(answer.body)["results"]
            assert [result["filename"] for result in results] == [name for name, _ in named]
            for data, result in zip(files, results, strict=True):
                reading = outcome_of_reading(data, LIMITS)
                allowed = {"not_a_chest_radiograph"} if reading == "read" else {reading}
                assert "prediction" in result or result["error"]["code"] in allowed
            assert results[batch % FILES_PER_BATCH]["prediction"] == alone


def exchanged(port: int, mutant: Mutant) -> list[str]:
    answers = exchange(port, mutant.data, patience_s=2)
    return [outcome_of_answer(answer) for answer in answers] or ["no answer"]


def test_a_broken_form_is_a_problem_or_understood(port: int) -> None:
    mutants = [form_mutant(SEED, index) for index in range(N_FORMS)]
    outcomes = each(partial(exchanged, port), mutants, threads=16)
    operators = {name for mutant in mutants for name in mutant.operators}
    assert operators >= {breaks.__name__ for breaks in (*FORM, *FRAMING)}
    assert {"200", "400 malformed_body", "400 missing_field", "408 slow_body"} <= set(outcomes)
    # Nobody is left without an answer who has sent a whole head.
    assert outcomes["no answer"] < N_FORMS / 100


def test_a_broken_request_is_a_problem_or_understood(port: int) -> None:
    mutants = [request_mutant(SEED, index) for index in range(N_REQUESTS)]
    outcomes = each(partial(exchanged, port), mutants, threads=32)
    operators = {name for mutant in mutants for name in mutant.operators}
    assert operators >= {breaks.__name__ for breaks in REQUEST}
    assert {"200", "400 malformed_request", "404 not_found", "405 method_not_allowed"} <= set(
        outcomes
    )


@pytest.mark.parametrize("header", ["Connection: close", "Connection: keep-alive"])
@pytest.mark.parametrize("size_bytes", [100_000, 20_000_000])
def test_a_body_that_is_refused_is_taken_in_to_its_end(
    port: int, header: str, size_bytes: int
) -> None:
    """The run found connections that were held, and senders stuck, where head and body came at
    once: so much had come before the answer that reading was paused, and it stayed so.
    """
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Type: image/jpeg"
    request = f"{head}\r\nContent-Length: {size_bytes}\r\n\r\n".encode() + bytes(size_bytes)
    for _ in range(5):
        begun = time.monotonic()
        (answer,) = exchange(port, request, patience_s=2)
        assert outcome_of_answer(answer) == "400 malformed_body"
        assert time.monotonic() - begun < 10


def test_the_shipped_bundle_withstands_mutated_radiographs() -> None:
    examples = {name for name in corpus() if name.startswith("example")}
    candidates = (image_mutant(SEED, index) for index in range(N_SHIPPED * 20))
    mutants = [mutant for mutant in candidates if mutant.base in examples][:N_SHIPPED]
    with served(create_app(Settings(threads=2))) as client:
        outcomes = each(partial(uploaded, client.base_url.port or 0, Limits()), mutants, threads=2)
    assert outcomes["200"] + outcomes["422 not_a_chest_radiograph"] > N_SHIPPED // 10


# --- what is sent is what is read -----------------------------------------------------------------

BOUNDARY = b"b0undary"
NAMES = st.text(st.characters(exclude_characters='"\\', exclude_categories=("Cc", "Cs")))
"""A quotation mark, a backslash and control characters have no one way to be written in a form."""

NEARLY_A_BOUNDARY = st.lists(
    st.sampled_from((b"\r", b"\n", b"\r\n", b"-", b"--", b"--" + BOUNDARY[:-1], b"x", b"\0")),
    max_size=20,
).map(b"".join)
CONTENTS = st.one_of(st.binary(max_size=500), NEARLY_A_BOUNDARY).filter(
    lambda content: b"\r\n--" + BOUNDARY not in b"\r\n" + content
)
OTHER_PARTS = st.lists(st.tuples(st.sampled_from((b"note", b"file", b"")), CONTENTS), max_size=3)


def part(disposition: bytes, content: bytes) -> bytes:
    head = b"--" + BOUNDARY + b"\r\nContent-Disposition: form-data; " + disposition
    return head + b"\r\n\r\n" + content + b"\r\n"


async def in_pieces(body: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        yield body[start:end]


@settings(derandomize=True, deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(NAMES, CONTENTS), min_size=1, max_size=8),
    OTHER_PARTS,
    st.lists(st.integers(0, 2**20), max_size=60),
    st.booleans(),
)
def test_what_is_sent_is_what_is_read_however_the_body_is_cut(
    files: list[tuple[str, bytes]],
    others: list[tuple[bytes, bytes]],
    cuts: list[int],
    quoted: bool,
) -> None:
    parts = [part(b'name="%b"' % name, content) for name, content in others]
    parts += [
        part(b'name="files"; filename="%b"' % name.encode(), content) for name, content in files
    ]
    body = b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"
    boundary = f'"{BOUNDARY.decode()}"' if quoted else BOUNDARY.decode()
    buffered: list[int] = []
    uploads = asyncio.run(
        read_uploads(
            Headers({"content-type": f"multipart/form-data; boundary={boundary}"}),
            in_pieces(body, cuts),
            name="files",
            limits=BodyLimits(
                max_body_bytes=len(body), max_file_bytes=500, max_files=len(files), timeout_s=30
            ),
            buffer=buffered.append,
        )
    )
    assert [(upload.filename, upload.data, upload.error) for upload in uploads] == [
        (name, content, None) for name, content in files
    ]
    assert sum(buffered) == len(body)
