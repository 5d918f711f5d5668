"""Counts what the data sets hold, for docs/data.md: how many, of whom, in which files.

    .venv/bin/python benchmarks/data_facts.py --data ../shared/data --out docs/reports/data.json

Does not: load a network, or judge a truth. ``docs/figures.py`` writes what it finds into the pages.
"""

import argparse
import json
import random
import re
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from PIL import Image

from chestxray.dataset import Labels, Sample, duplicates, of_sources, read_dataset
from chestxray.dataset.table import read_table
from chestxray.evaluation.heldout import heldout_samples
from chestxray.inference import BUNDLED, read_bundle

REGULAR_NAMES = re.compile(
    r"(person\d+_(bacteria|virus)_\d+|(NORMAL2-)?IM-\d{4}-\d{4}(-\d{4})?)\.jpeg"
)
CHILDREN = "chest_xray"
LEARNED = (f"{CHILDREN}/train", "others/nih", "others/rsna_normal", "others/rsna_lungs", "adults")
"""The data sets that the shipped bundle's split was made of."""
LEAK_SEEDS = 20
"""How many random splits by image are tried to say how much such a split leaks."""


def main() -> None:
    asked = argparse.ArgumentParser(description="counts what the data sets hold")
    asked.add_argument("--data", type=Path, required=True, help="holds chest_xray/train, adults, …")
    asked.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = asked.parse_args()

    manifest = read_bundle(BUNDLED).manifest
    labels = manifest.finding.labels
    train = read_dataset(given.data / CHILDREN / "train", labels)
    learned = read_dataset([given.data / name for name in LEARNED], labels)
    all_heldout = heldout_samples(learned, [manifest])
    heldout = of_sources(all_heldout, [CHILDREN])
    originals = read_dataset(given.data / "originals", labels)
    adults = read_dataset(given.data / "adults", labels)
    facts = {
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "train": counted(train, labels)
        | files_of(train, labels)
        | {
            "subjects": subjects_of(train),
            "duplicates": duplicates_of(train),
            "irregular_names": sorted(
                s.path for s in train if not REGULAR_NAMES.fullmatch(Path(s.path).name)
            ),
            "split_by_image": leak_of_a_split_by_image(train, len(heldout)),
        },
        "heldout": counted(heldout, labels),
        "split": {
            source: {"all": _size(of_it), "heldout": _size(of_sources(all_heldout, [source]))}
            for source in sorted({s.source for s in learned})
            for of_it in (of_sources(learned, [source]),)
        },
        "originals": counted(originals, labels)
        | files_of(originals, labels)
        | {"n_of_heldout_subjects": _n_of_subjects(originals, heldout)},
        "adults": counted(adults, labels)
        | files_of(adults, labels)
        | {
            "views": views_of(adults, labels),
            "people": people_of(adults),
        },
        "others": others_of(given.data / "others", labels),
        "not_chest": {
            kind: sum(file.is_file() for file in (given.data / "not_chest" / kind).iterdir())
            for kind in ("natural", "bone")
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=1))


def _size(samples: Sequence[Sample]) -> dict[str, int]:
    return {"n": len(samples), "n_subjects": len({s.subject for s in samples})}


def counted(samples: Sequence[Sample], labels: Labels) -> dict[str, Any]:
    """``n`` and ``n_subjects``, of all, of each truth and of each group."""
    groups = sorted({(s.truth, s.group) for s in samples if s.group is not None})
    return _size(samples) | {
        "truths": {truth: _size([s for s in samples if s.truth == truth]) for truth in labels},
        "groups": {
            group: {"truth": truth}
            | _size([s for s in samples if (s.truth, s.group) == (truth, group)])
            for truth, group in groups
        },
    }


def files_of(samples: Sequence[Sample], labels: Labels) -> dict[str, Any]:
    """Of each truth, what its files are like: what could tell the truths apart without lungs."""
    found = {}
    for truth in labels:
        files = [s.file for s in samples if s.truth == truth]
        modes: Counter[str] = Counter()
        widths_px, heights_px, greys, n_coloured = [], [], [], 0
        for file in files:
            with Image.open(file) as image:
                modes[f"{image.format} {image.mode}"] += 1
                widths_px.append(image.width)
                heights_px.append(image.height)
                if image.mode == "RGB":
                    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
                    n_coloured += bool((red != green).any() or (red != blue).any())
                greys.append(float(np.asarray(image.convert("L")).mean()) / 255)
        sizes_bytes = [file.stat().st_size for file in files]
        found[truth] = {
            "modes": dict(modes.most_common()),
            "n_coloured": n_coloured,
            "width_px": {"mean": mean(widths_px), "min": min(widths_px), "max": max(widths_px)},
            "height_px": {"mean": mean(heights_px), "min": min(heights_px), "max": max(heights_px)},
            "size_bytes": {"mean": mean(sizes_bytes), "median": median(sizes_bytes)},
            "grey": {"mean": mean(greys), "std": float(np.std(greys, ddof=1))},
        }
    return {"files": found}


def subjects_of(samples: Sequence[Sample]) -> dict[str, Any]:
    per_subject = Counter(s.subject for s in samples)
    subject, n_most = per_subject.most_common(1)[0]
    return {
        "n_with_several": sum(n > 1 for n in per_subject.values()),
        "n_radiographs_of_those": sum(n for n in per_subject.values() if n > 1),
        "most": {"subject": subject, "n": n_most},
    }


def duplicates_of(samples: Sequence[Sample]) -> dict[str, int]:
    sets = duplicates(samples)
    return {
        "n_sets": len(sets),
        "n_copies": sum(len(same) - 1 for same in sets),
        "n_pairs": sum(len(same) * (len(same) - 1) // 2 for same in sets),
        "n_sets_of_several_subjects": sum(len({s.subject for s in same}) > 1 for same in sets),
        "n_sets_of_both_truths": sum(len({s.truth for s in same}) > 1 for same in sets),
    }


def leak_of_a_split_by_image(samples: Sequence[Sample], n_heldout: int) -> dict[str, Any]:
    """What a split that ignores subjects would do: the share of its held-out radiographs whose
    subject was trained on, a mean over random splits."""
    shares = []
    for seed in range(LEAK_SEEDS):
        shuffled = list(samples)
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - reproducible, not secret
        trained = {s.subject for s in shuffled[n_heldout:]}
        shares.append(mean(s.subject in trained for s in shuffled[:n_heldout]))
    return {"n_heldout": n_heldout, "n_splits": LEAK_SEEDS, "share_leaked": mean(shares)}


def views_of(samples: Sequence[Sample], labels: Labels) -> dict[str, dict[str, Any]]:
    by_view: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_view[sample.view or "unknown"].append(sample)
    return {view: counted(of_it, labels) for view, of_it in sorted(by_view.items())}


def people_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Age and sex, counted per radiograph."""
    ages = [int(s.age_years) for s in samples if s.age_years is not None]
    return {
        "age_years": {"min": min(ages), "median": median(ages), "max": max(ages)},
        "n_under_18": sum(age < 18 for age in ages),
        "sex": dict(Counter(s.groups["sex"] for s in samples if "sex" in s.groups).most_common()),
    }


def others_of(folder: Path, labels: Labels) -> dict[str, Any]:
    """What other hospitals gave, by source, and how many subjects several of them share."""
    folders = sorted(table.parent for table in folder.glob("*/labels.csv"))
    samples = read_dataset(folders, labels)
    sources = {}
    for source in (path.name for path in folders):
        of_it = [s for s in samples if s.source == source]
        n_rows = len(read_table(folder / source / "labels.csv", ["file"]))
        sources[source] = counted(of_it, labels) | {
            "n_without_label": n_rows - len(of_it),
            "views": {
                truth: dict(Counter(s.view or "unknown" for s in of_it if s.truth == truth))
                for truth in labels
            },
            "publishable": dict(Counter(s.groups["publishable"] for s in of_it).most_common()),
        }
    of_subject: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        of_subject[sample.subject].add(sample.source)
    n_shared = sum(len(of_one) > 1 for of_one in of_subject.values())
    return {"sources": sources, "n_subjects": len(of_subject), "n_subjects_of_several": n_shared}


def _n_of_subjects(samples: Sequence[Sample], of: Sequence[Sample]) -> int:
    subjects = {s.subject for s in of}
    return sum(s.subject in subjects for s in samples)


if __name__ == "__main__":
    main()
