"""What must hold whatever was sent: asked by the fuzzing tests and by the long runs.

Does not: know what was sent; where that decides the answer, it is a parameter.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, NoReturn

import numpy as np

from chestxray.assessment import Choices, Policy
from chestxray.errors import ChestXrayError
from chestxray.imaging import Limits, open_file, read
from chestxray.inference import BUNDLED, read_bundle
from chestxray.service.http.problems import MEDIA_TYPE, PROBLEMS
from factories.exchanges import Answer

LIMITS = Limits()

CODES = {error.code: status for error, (status, _) in PROBLEMS.items() if status < 500}
CODES |= {"not_found": 404, "method_not_allowed": 405}
CODES |= {"malformed_request": 400, "headers_too_large": 431, "slow_head": 408}
"""Every code that a client may be given while the service is neither starting nor ending."""

WHOLE_ANSWER = "/predict?heatmap=true&evidence=true&preview=true&input_check=warn"
"""Where everything is computed and drawn, even of what is not like a radiograph."""

REQUEST_ID = re.compile("[0-9A-Fa-f-]{8,64}")


@cache
def _policy() -> Policy:
    """The shipped bundle's, as most ask it."""
    return Policy.of(read_bundle(BUNDLED).manifest, Choices())


def outcome_of_reading(data: bytes, limits: Limits = LIMITS) -> str:
    """``read``, or the code of the error that opening, admitting or decoding it raises.

    Asserts that a radiograph is one, and the same one when it is read again: pixels that the file
    does not give would be what lay in memory, another patient's perhaps.
    """
    try:
        file = open_file(data, limits)
        _policy().admit(file.acquisition)
        radiograph = file.decode(None)
    except ChestXrayError as exc:
        if type(exc).__subclasses__():
            raise AssertionError(f"{type(exc).__name__} says too little") from exc
        return exc.code
    pixels = radiograph.pixels
    assert pixels.dtype == np.float32
    assert pixels.ndim == 2
    assert pixels.flags.c_contiguous
    assert 0 <= pixels.min() <= pixels.max() <= 1  # false for NaN, too
    width_px, height_px = radiograph.width_px, radiograph.height_px
    assert min(width_px, height_px) >= limits.min_side_px
    assert width_px * height_px <= limits.max_pixels
    assert 0 < pixels.shape[0] <= height_px
    assert 0 < pixels.shape[1] <= width_px
    del radiograph
    unlike = np.full_like(pixels, 0.123)  # so that memory given back does not hold the same
    del unlike
    assert np.array_equal(read(data, limits).pixels, pixels), "read twice, it is another picture"
    return "read"


def outcome_of_answer(answer: Answer) -> str:
    """The answer's status, and the code of its problem if it has one.

    Asserts what holds of every answer of a service that is ready.
    """
    assert 200 <= answer.status < 500, f"{answer.status}: {answer.body[:200]!r}"
    identity = answer.headers["x-request-id"]
    assert REQUEST_ID.fullmatch(identity), identity
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status < 400:
        if answer.headers.get("content-type") == "application/json" and not answer.bodiless:
            parsed_json(answer.body)
        return str(answer.status)
    assert answer.headers["content-type"] == MEDIA_TYPE, answer.headers["content-type"]
    if answer.status == 405:
        assert answer.headers["allow"]
    if answer.status == 429:
        assert int(answer.headers["retry-after"]) >= 1
    if answer.status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if answer.bodiless:
        return str(answer.status)
    problem = parsed_json(answer.body)
    assert problem["status"] == CODES[problem["code"]] == answer.status
    assert problem["type"] == f"urn:chestxray:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == identity
    return f"{answer.status} {problem['code']}"


def target_for(data: bytes) -> str:
    """Where a file is sent to: one in two is to be answered in whole, whatever it shows."""
    return WHOLE_ANSWER if len(data) % 2 else "/predict"


def assert_answers_reading(answer: Answer, reading: str) -> None:
    """That the service says of a file what ``outcome_of_reading`` says of it.

    What can be read, the model may answer, or the input check refuse.
    """
    outcome = outcome_of_answer(answer)
    if reading == "read":
        assert outcome in {"200", "422 not_a_chest_radiograph"}, outcome
        if answer.status == 200:
            prediction = parsed_json(answer.body)
            assert 0 <= prediction["probability"] <= 1
            assert prediction["label"] in {"NORMAL", "PNEUMONIA"}
    else:
        assert outcome == f"{CODES[reading]} {reading}", outcome


def parsed_json(body: bytes) -> Any:
    """JSON as RFC 8259 has it: no NaN, no infinity."""
    return json.loads(body, parse_constant=_no_constant)


def _no_constant(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")
