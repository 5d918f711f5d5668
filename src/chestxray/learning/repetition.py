"""How far the recipe's figures vary: over who is held out (folds), and over chance (seeds).

Every repetition is a whole run: trained, exported and judged through its bundle. Where several
processes train together, the first one does all but the training, and speaks.

Does not: make a bundle to ship.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.dataset import Sample, split_folds
from chestxray.evaluation.metrics import FIGURES
from chestxray.learning.config import TrainConfig
from chestxray.learning.export import export
from chestxray.learning.inputs import NOWHERE, Where
from chestxray.learning.processes import ALONE, Processes
from chestxray.learning.training import Progress, Run, no_progress, train

Say = Callable[[str], None]
External = Mapping[str, list[Sample]]


def cross_validate(
    config: TrainConfig,
    samples: list[Sample],
    out: Path,
    n_folds: int,
    *,
    init: Path | None = None,
    external: External | None = None,
    where: Where = NOWHERE,
    processes: Processes = ALONE,
    progress: Progress = no_progress,
    say: Say = print,
) -> dict[str, Any]:
    """Train on all folds but one, ``n_folds`` times, into ``out/fold-K``; resumes where killed.

    Writes and returns ``cross_validation.json``: see ``_written``.
    """

    def fold(number: int) -> Run:
        folder = out / f"fold-{number + 1}"
        split = splits[number]
        return train(
            config,
            samples,
            folder,
            init=init,
            split=split,
            where=where,
            processes=processes,
            progress=progress,
            say=say,
        )

    splits = split_folds(samples, n_folds, config.seed)
    runs = []
    for number in range(n_folds):
        if processes.first:
            say(f"fold {number + 1} of {n_folds}")
        run = fold(number)
        if processes.first:
            runs.append({"fold": number + 1} | _judged(run, external, where, progress))
    return _written(config, {"folds": runs}, out / "cross_validation.json", processes)


def repeat(
    config: TrainConfig,
    samples: list[Sample],
    out: Path,
    n_seeds: int,
    *,
    init: Path | None = None,
    external: External | None = None,
    where: Where = NOWHERE,
    processes: Processes = ALONE,
    progress: Progress = no_progress,
    say: Say = print,
) -> dict[str, Any]:
    """The recipe with ``n_seeds`` seeds from its own upwards, into ``out/seed-K``; resumes.

    A seed decides the split too, so the spread has both in it. Writes and returns ``seeds.json``:
    see ``_written``.
    """
    runs = []
    for seed in range(config.seed, config.seed + n_seeds):
        if processes.first:
            say(f"seed {seed}")
        run = train(
            config.model_copy(update={"seed": seed}),
            samples,
            out / f"seed-{seed}",
            init=init,
            where=where,
            processes=processes,
            progress=progress,
            say=say,
        )
        if processes.first:
            runs.append({"seed": seed} | _judged(run, external, where, progress))
    return _written(config, {"seeds": runs}, out / "seeds.json", processes)


def _judged(
    run: Run, external: External | None, where: Where, progress: Progress
) -> dict[str, Any]:
    """Export a run; its figures at the default operating point, by data set."""
    manifest = export(
        run, run.folder / "bundle", external=external, boxes=where.boxes, progress=progress
    )
    held, *others = [
        {"n": entry["n"], "n_subjects": entry["n_subjects"]}
        | entry["operating_points"][manifest.default_operating_point]
        for entry in manifest.metrics
    ]
    judged: dict[str, Any] = held | {
        "wall_s": round(sum(row["wall_s"] for row in run.history)),
        "external": dict(zip(external or {}, others, strict=True)),
    }
    return judged


def _written(
    config: TrainConfig,
    named: Mapping[str, Sequence[dict[str, Any]]],
    file: Path,
    processes: Processes,
) -> dict[str, Any]:
    """The runs, under their name, and their summary: mean and standard deviation of every figure on
    held-out subjects and on every external data set. The first process writes it, all return it."""
    if processes.first:
        ((name, runs),) = named.items()
        summary = {
            "config": config.model_dump(mode="json"),
            "summary": _summary(runs),
            "external": {
                other: _summary([run["external"][other] for run in runs])
                for other in runs[0]["external"]
            },
            name: runs,
        }
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    processes.wait()
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def _summary(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    summary = {}
    for name in FIGURES:
        # A run in which a figure has no denominator says nothing of it.
        values = [e[name]["value"] for e in entries if e[name]["value"] is not None]
        summary[name] = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
    return summary
