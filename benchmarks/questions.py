"""What clients ask of a service under faults and in a soak, and the answers that they must get.

Radiographs are the repository's examples and drawn ones; the input check does not accept these, so
they are sent with ``input_check=warn``.

Does not: send anything but to learn the answers, from a service to which nothing else happens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from reliability import REPOSITORY

from chestxray.imaging import read
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Predictor
from factories import images
from factories.exchanges import Answer, Connection, upload

EXAMPLES = sorted((REPOSITORY / "src" / "chestxray" / "examples").glob("*.jpeg"))

WARN = "/predict?input_check=warn"

_REQUEST_ID = re.compile(rb'"request_id":"[^"]*"')


class WrongAnswerError(Exception):
    """The service answers a question in two ways, or not as the library does."""


@dataclass(frozen=True)
class Question:
    """A request; of which kind; and the answer that it must get, as soon as that is known."""

    kind: str
    request: bytes
    file: bytes = b""
    """What is asked about, if it is one file."""
    status: int = 0
    body: bytes = b""

    def is_answered_by(self, answer: Answer) -> bool:
        return (answer.status, _without_id(answer.body)) == (self.status, self.body)


def questions(*, large_side_px: int = 1800) -> list[Question]:
    """A few questions of every kind."""
    small = [path.read_bytes() for path in EXAMPLES]
    large = [_jpeg(seed, large_side_px) for seed in range(2)]
    deep = [_deep_png(seed, large_side_px // 2) for seed in range(2)]
    bad = bad_files()
    batches = [[*small, bad[i], large[0], deep[0], small[i]] for i in range(2)]
    return [
        *(_one("small", "/predict", file) for file in small),
        *(_one("heatmap", "/predict?heatmap=true&evidence=true", file) for file in small),
        *(_one("large", WARN, file) for file in large),
        *(_one("16 bit", WARN + "&preview=true", file) for file in deep),
        *(_one("bad", "/predict", file) for file in bad),
        *(
            Question("batch", upload("/predict_batch?input_check=warn", _named(batch)))
            for batch in batches
        ),
    ]


def bad_files() -> list[bytes]:
    """Files of which each has another problem."""
    whole = EXAMPLES[0].read_bytes()
    return [
        b"this is a text, whatever its name says",
        whole[: len(whole) // 2],
        b"",
        images.gif(),
        images.png(images.smooth(20, 20)),
        images.png(np.full((64, 64), 255, np.uint8)),
    ]


def batch_of_one_bad(n: int, bad_at: int) -> list[tuple[str, bytes]]:
    """Named files, of which one is bad."""
    good = [path.read_bytes() for path in EXAMPLES]
    files = [good[number % len(good)] for number in range(n)]
    files[bad_at] = bad_files()[bad_at % len(bad_files())]
    return _named(files)


def answered(asked: Sequence[Question], port: int) -> list[Question]:
    """The questions with the answers that the service gives, one after the other.

    Raises:
        WrongAnswerError: it gives another answer the second time, or another probability than this
            process computes from the same file.
    """
    predictor = Predictor.load()
    shrink_to_px = predictor.manifest.preprocessing.shrink_to_px
    known = []
    with Connection(port) as connection:
        for question in asked:
            first = connection.ask(question.request)
            known.append(replace(question, status=first.status, body=_without_id(first.body)))
            if not known[-1].is_answered_by(connection.ask(question.request)):
                raise WrongAnswerError(f"{question.kind}: two answers to one question")
            if question.file and first.status == 200:
                (prediction,) = predictor.predict([read(question.file, shrink_to_px=shrink_to_px)])
                if json.loads(first.body)["probability"] != prediction.probability:
                    raise WrongAnswerError(f"{question.kind}: not what the library says")
    return known


def chosen(known: Sequence[Question], shares: dict[str, float], rng: Random) -> Question:
    """A question, of a kind as often as ``shares`` say."""
    kinds = sorted(shares)
    (kind,) = rng.choices(kinds, [shares[kind] for kind in kinds])
    return rng.choice([question for question in known if question.kind == kind])


def _one(kind: str, target: str, file: bytes) -> Question:
    return Question(kind, upload(target, [("a", file)]), file)


def _named(files: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [(str(number), file) for number, file in enumerate(files)]


def _jpeg(seed: int, side_px: int) -> bytes:
    levels = np.rint(synthetic_radiograph(seed, side_px) * 255).astype(np.uint8)
    return images.jpeg(levels[: side_px * 3 // 4], quality=90)


def _deep_png(seed: int, side_px: int) -> bytes:
    levels = np.rint(synthetic_radiograph(seed, side_px) * 65535).astype(np.uint16)
    return images.raw_png(levels, images.GREY, 16)


def _without_id(body: bytes) -> bytes:
    return _REQUEST_ID.sub(b'"request_id":""', body)
