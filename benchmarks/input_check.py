"""What the input check accepts and refuses, and what becomes of negatives; for the model card.

    .venv/bin/python benchmarks/input_check.py --data ../shared/data \\
        --out docs/reports/input_check.json

Asked of the shipped bundle, or of ``--bundle``: radiographs of adults, full-size originals, every
fourth file of the held-out subjects (those of ``evaluate --heldout``), clean and under what a
clinic does to them; then photographs and bone X-rays; then the negatives of radiographs. Corrupted
pictures are those of ``evaluate --stress``: the same draw from (SHA-256 of the file, corruption,
severity).

Does not: choose a threshold; the check's is the manifest's.
"""

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chestxray.dataset import Sample, read_dataset
from chestxray.errors import ChestXrayError
from chestxray.evaluation.corruptions import (
    CLINIC_SEVERITIES,
    CORRUPTIONS,
    NOT_FROM_A_CLINIC,
    corrupted,
)
from chestxray.evaluation.heldout import heldout_samples
from chestxray.evaluation.radiographs import read_radiograph
from chestxray.evaluation.stress import shrunk
from chestxray.imaging import Radiograph
from chestxray.inference import BUNDLED, Prediction, Predictor

EVERY = 4
"""One held-out file in so many is asked about, to keep it short: each is judged two dozen times."""

CLINIC = [
    (name, severity)
    for name in CORRUPTIONS
    if name not in NOT_FROM_A_CLINIC
    for severity in CLINIC_SEVERITIES
]

Answers = list[Prediction]


def main() -> None:
    asked = argparse.ArgumentParser(description="what the input check accepts and refuses")
    asked.add_argument("--data", type=Path, required=True, help="holds chest_xray/train, adults, …")
    asked.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked.add_argument("--bundle", type=Path, default=BUNDLED, help="unset, the shipped one")
    asked.add_argument("--every", type=int, default=EVERY, help=f"held-out file [{EVERY}]")
    given = asked.parse_args()

    predictor = Predictor.load(given.bundle)
    labels = predictor.manifest.finding.labels
    heldout = heldout_samples(
        read_dataset(given.data / "chest_xray" / "train", labels), [predictor.manifest]
    )
    facts = {
        "bundle_sha256": predictor.bundle_sha256,
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "threshold": predictor.manifest.input_check.threshold,
        "operating_point": predictor.operating_point()[0],
        "heldout_every": given.every,
        "sets": _radiographs(predictor, given.data, heldout[:: given.every])
        | _not_chests(predictor, given.data / "not_chest"),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _print(facts)


def _radiographs(
    predictor: Predictor, data: Path, heldout: Sequence[Sample]
) -> dict[str, dict[str, Any]]:
    """What should be accepted, and the negatives of it."""
    upright: dict[str, dict[str, Any]] = {}
    negatives: dict[str, dict[str, Any]] = {}
    labels = predictor.manifest.finding.labels
    for name, samples in (
        ("adults", read_dataset(data / "adults", labels)),
        ("originals", read_dataset(data / "originals", labels)),
        ("heldout", heldout),
    ):
        answered = _asked(predictor, [s.file for s in samples], _and_its_negative)
        read = [answers for answers in answered if answers]
        upright[name] = _accepted([clean for clean, _ in read], len(samples))
        if name != "originals":
            negatives[f"negatives of {name}"] = {
                "n": len(read),
                "accepted": sum(negative.input_check.accepted for _, negative in read),
                "noticed": sum(negative.inverted for _, negative in read),
                "same_label": sum(negative.label == clean.label for clean, negative in read),
            }
    corrupted_at = partial(_in_a_clinic, predictor.manifest.preprocessing.shrink_to_px)
    in_a_clinic = [a for a in _asked(predictor, [s.file for s in heldout], corrupted_at) if a]
    for column, (corruption, severity) in enumerate(CLINIC):
        upright[f"heldout {corruption} {severity}"] = {
            "corruption": corruption,
            "severity": severity,
            "level": CORRUPTIONS[corruption].level_text(severity),
        } | _accepted([answers[column] for answers in in_a_clinic], len(heldout))
    return upright | negatives


def _not_chests(predictor: Predictor, folder: Path) -> dict[str, dict[str, int]]:
    """What should be refused."""
    found = {}
    for kind in ("natural", "bone"):
        files = sorted(file for file in (folder / kind).iterdir() if file.is_file())
        read = [answers[0] for answers in _asked(predictor, files, _as_it_is) if answers]
        found[kind] = {
            "n": len(read),
            "refused": sum(not answer.input_check.accepted for answer in read),
            "n_unreadable": len(files) - len(read),
        }
    return found


def _accepted(answers: Answers, n_files: int) -> dict[str, int]:
    return {
        "n": len(answers),
        "accepted": sum(answer.input_check.accepted for answer in answers),
        "inverted": sum(answer.inverted for answer in answers),  # wrongly: these are upright
        "n_unreadable": n_files - len(answers),
    }


def _asked(
    predictor: Predictor,
    files: Sequence[Path],
    variants: Callable[[Radiograph, Path], Iterator[Radiograph]],
) -> list[Answers]:
    """The predictions for every variant of each file; none of a file that cannot be read."""

    def ask(file: Path) -> Answers:
        try:
            radiograph = read_radiograph(file, predictor.manifest)
        except ChestXrayError:
            return []
        return predictor.predict(list(variants(radiograph, file)))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(ask, files))


def _as_it_is(radiograph: Radiograph, _: Path) -> Iterator[Radiograph]:
    yield radiograph


def _and_its_negative(radiograph: Radiograph, _: Path) -> Iterator[Radiograph]:
    yield radiograph
    yield replace(radiograph, pixels=1 - radiograph.pixels)


def _in_a_clinic(side_px: int, radiograph: Radiograph, file: Path) -> Iterator[Radiograph]:
    """One picture for each of ``CLINIC``."""
    pixels = shrunk(radiograph.pixels, side_px)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    for name, severity in CLINIC:
        yield replace(radiograph, pixels=corrupted(pixels, sha256, name, severity))


def _print(facts: dict[str, Any]) -> None:
    print(f"bundle {facts['bundle_sha256']}, one held-out file in {facts['heldout_every']}")
    for name, counts in facts["sets"].items():
        told = [
            f"{what} {counts[what]:4}"
            for what in ("accepted", "refused", "inverted", "noticed", "same_label")
            if what in counts
        ]
        print(f"{name:32} n {counts['n']:4}  {'  '.join(told)}")


if __name__ == "__main__":
    main()
