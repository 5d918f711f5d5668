"""What the input check accepts and refuses, and what becomes of negatives; for the model card.

    .venv/bin/python benchmarks/input_check.py --data ../shared/data \\
        --out docs/reports/input_check.json

Asked of the shipped bundle, or of ``--bundle``: the frontal chests of every source, of those that
it has learned from only of held-out subjects (those of ``evaluate --heldout``), and full-size
originals; every fourth of the held-out children under what a clinic does to them; then lateral
chests, other parts, photographs; then the negatives of radiographs. Corrupted pictures are those of
``evaluate --stress``: the same draw from (SHA-256 of the file, corruption, severity).

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

from chestxray.dataset import of_sources, read_dataset
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
"""One held-out file in so many is corrupted, to keep it short: each is judged two dozen times."""

CHILDREN, ADULTS = "chest_xray", "adults"
LEARNED = (f"{CHILDREN}/train", "others/nih", "others/rsna_normal", "others/rsna_lungs", ADULTS)
"""The data sets that the shipped bundle was trained on, and one of the same that only judges."""
WHOLE = (CHILDREN, "nih", "rsna_normal", ADULTS)
"""Their sources of whole radiographs."""
NEVER_LEARNED = ("hannover", "ieee8023", "openist", "pk_tb", "tb_qatar", "figure1", "actualmed")
SUFFIXES = (".jpg", ".jpeg", ".png")
NOT_FRONTAL = "others/not_frontal_chest"

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
    learned = read_dataset([given.data / folder for folder in LEARNED], labels)
    heldout = heldout_samples(learned, [predictor.manifest])
    chests = {name: [s.file for s in of_sources(heldout, [name])] for name in WHOLE}
    chests |= {name: _pictures(given.data / "others" / name) for name in NEVER_LEARNED}
    chests["originals"] = _pictures(given.data / "originals")
    others = {
        folder.name: _pictures(folder)
        for parent in (given.data / NOT_FRONTAL, given.data / "not_chest")
        for folder in sorted(parent.iterdir())
        if folder.is_dir()
    }
    facts = {
        "bundle_sha256": predictor.bundle_sha256,
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "threshold": predictor.manifest.input_check.threshold,
        "operating_point": predictor.operating_point()[0],
        "heldout_every": given.every,
        "chests": {name: _of_chests(predictor, files) for name, files in chests.items()},
        "corrupted": _in_a_clinic(predictor, chests[CHILDREN][:: given.every]),
        "others": {name: _of_others(predictor, files) for name, files in others.items()},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _print(facts)


def _pictures(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _of_chests(predictor: Predictor, files: Sequence[Path]) -> dict[str, int]:
    """What should be accepted, and what becomes of its negatives."""
    read = [answers for answers in _asked(predictor, files, _and_its_negative) if answers]
    return _accepted([clean for clean, _ in read], len(files)) | {
        "negatives_noticed": sum(negative.inverted for _, negative in read),
        "negatives_same_label": sum(negative.label == clean.label for clean, negative in read),
    }


def _in_a_clinic(predictor: Predictor, files: Sequence[Path]) -> list[dict[str, Any]]:
    corrupted_at = partial(_corrupted, predictor.manifest.preprocessing.shrink_to_px)
    read = [answers for answers in _asked(predictor, files, corrupted_at) if answers]
    return [
        {
            "corruption": corruption,
            "severity": severity,
            "level": CORRUPTIONS[corruption].level_text(severity),
        }
        | _accepted([answers[column] for answers in read], len(files))
        for column, (corruption, severity) in enumerate(CLINIC)
    ]


def _of_others(predictor: Predictor, files: Sequence[Path]) -> dict[str, int]:
    """What should be refused."""
    return _accepted([a[0] for a in _asked(predictor, files, _as_it_is) if a], len(files))


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


def _corrupted(side_px: int, radiograph: Radiograph, file: Path) -> Iterator[Radiograph]:
    """One picture for each of ``CLINIC``."""
    pixels = shrunk(radiograph.pixels, side_px)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    for name, severity in CLINIC:
        yield replace(radiograph, pixels=corrupted(pixels, sha256, name, severity))


def _print(facts: dict[str, Any]) -> None:
    print(f"bundle {facts['bundle_sha256']}")
    for what in ("chests", "others"):
        for name, counts in facts[what].items():
            print(f"{what:8} {name:20} accepted {counts['accepted']:4} of {counts['n']}")
    for of in facts["corrupted"]:
        name = f"{of['corruption']} {of['severity']}"
        print(f"{'clinic':8} {name:20} accepted {of['accepted']:4} of {of['n']}")


if __name__ == "__main__":
    main()
