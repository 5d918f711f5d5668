"""How fast a folder of files is scored, against the in-process limit.

    .venv/bin/python benchmarks/scoring.py

``score_samples`` is what `chestxray evaluate` and `calibrate` score with: files are read from disk
(from its cache, after the first time) and judged by as many threads as cores.

Does not: make a report of the answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from limit import InProcessLimit
from machine import CORES
from measurement import Laps, Row, median_of
from radiographs import Radiographs
from table import run

from chestxray.dataset import Sample
from chestxray.evaluation.evaluate import score_samples
from chestxray.inference import Predictor

SECONDS = 2.0
"""For each case in a round."""

SCORING = "score files from disk"


def measure(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """For each kind of file, a row for scoring and one for the better limit."""
    predictor = Predictor.load()
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    with InProcessLimit() as limit:
        for _ in range(rounds):
            for of in files:
                for row in (
                    _scored(predictor, of, seconds),
                    limit.in_threads(of, seconds),
                    limit.in_processes(of, seconds),
                ):
                    found[row.on, row.what].append(row)
    rows = []
    for of in files:
        scored, *limits = (median_of(found[key]) for key in found if key[0] == of.kind)
        best = max(limits, key=lambda row: row.per_s)
        note = f"{scored.per_s / best.per_s:.2f} × the limit"
        rows += [replace(scored, note=note), replace(best, benchmark="scoring")]
    return rows


def _scored(predictor: Predictor, files: Radiographs, seconds: float) -> Row:
    samples = [
        Sample(path.name, path, "NORMAL", False, subject=path.name, sha256="", source="")
        for path in files.paths
    ]
    laps = Laps()
    laps.add(lambda: score_samples(predictor, samples, threads=CORES), seconds)
    row = laps.row("scoring", SCORING, files.kind, each=len(samples))
    return replace(row, p50_ms=None)  # of the whole folder: it says nothing


if __name__ == "__main__":
    run(measure, __doc__, seconds=SECONDS)
