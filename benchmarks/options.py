"""What else could have been chosen: processes and threads, and how far a JPEG is shrunk.

    .venv/bin/python benchmarks/options.py

Servers are loaded in turns at 8 connections. Of shrinking the price is told too: how far the
logit moves from that of the full decode, through the shipped bundle.

Does not: measure what would need another library (docs/performance.md says what was tried by
hand). ONNX Runtime's options are in ``inference``.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
from load import LoadError, load, write_bodies, wrk
from machine import CORES
from measurement import Row, in_turns, median_of
from processes import ServerError, started
from radiographs import Radiographs
from serving import AT, SERVE, loaded
from table import run

from chestxray.imaging import Radiograph, read, resize
from chestxray.inference import Prediction, Predictor
from chestxray.inference.bundle import Preprocessing

SECONDS = 2.0
"""For each case in a round."""

SIDE_PX = 224
SHRINK_TO_PX = Preprocessing.enough_px(SIDE_PX)
FLOORS_PX = (SHRINK_TO_PX, 320, 224)

Decode = Callable[[bytes], Radiograph]


def measure(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for each choice.

    Raises:
        LoadError, ServerError: see there.
    """
    return [
        *_servers(files, rounds=rounds, seconds=seconds),
        *_decoders(files[0], rounds=rounds, seconds=seconds / 2),
    ]


def _servers(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """Processes and threads in each: the default first."""
    wrk()
    shapes = [(1, CORES), (1, 1), (1, 2 * CORES), (CORES, 1), (CORES, 2)]
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = {of.kind: write_bodies(of.contents(), folder / of.kind) for of in files}
        servers = {}
        for workers, threads in dict.fromkeys(shapes):
            what = f"{_count(workers, 'process')} of {_count(threads, 'thread')}"
            command = (*SERVE, "--workers", str(workers))
            environment = {"CHESTXRAY_THREADS": str(threads)}
            servers[what] = stack.enter_context(started(command, "/readyz", environment))
            small = bodies["small"]
            load(servers[what].address, "/predict", bodies=small, connections=AT, seconds=1)
        for _ in range(rounds):
            for kind, folder in bodies.items():
                for what, server in servers.items():
                    row = loaded(server, what, kind, folder, AT, seconds)
                    found[what, kind].append(replace(row, benchmark="options"))
    return [median_of(rows) for rows in found.values()]


def _count(n: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{n} {what}{plural if n > 1 else ''}"


def _decoders(files: Radiographs, *, rounds: int, seconds: float) -> list[Row]:
    contents = files.contents()
    decoders: dict[str, Decode] = {
        "Pillow, not shrunk": read,
        **{f"Pillow, shrunk to {px} px or more": _pillow(px) for px in FLOORS_PX},
    }

    def making_inputs(decode: Decode) -> Callable[[], object]:
        each = cycle(contents)
        return lambda: resize(decode(next(each)).pixels, SIDE_PX)

    laps = in_turns(
        {what: making_inputs(decode) for what, decode in decoders.items()},
        rounds=rounds,
        seconds=seconds,
    )
    predictor = Predictor.load()
    answers = {
        what: [predictor.predict([decode(data)])[0] for data in contents]
        for what, decode in decoders.items()
    }
    full = answers["Pillow, not shrunk"]
    return [
        laps[what].row("options", what, f"JPEG, {files.kind}", note=_moved(answers[what], full))
        for what in decoders
    ]


def _pillow(floor_px: int) -> Decode:
    return partial(read, shrink_to_px=floor_px)


def _moved(answers: Sequence[Prediction], full: Sequence[Prediction]) -> str:
    moves = [abs(a.logit - b.logit) for a, b in zip(answers, full, strict=True)]
    same = sum(a.label == b.label for a, b in zip(answers, full, strict=True))
    return (
        f"logit moves by {np.percentile(moves, 95):.3f} (p95), {max(moves):.3f} (max); "
        f"{same}/{len(full)} labels stay"
    )


if __name__ == "__main__":
    try:
        run(measure, __doc__, seconds=SECONDS)
    except (LoadError, ServerError) as exc:
        sys.exit(f"options: {exc}")
