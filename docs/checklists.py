"""Writes ``checklists.md``: CLAIM and TRIPOD+AI, answered item by item for the shipped bundle.

    .venv/bin/python docs/checklists.py            # writes
    .venv/bin/python docs/checklists.py --check    # exits 1 where the page is stale

``checklists.toml`` has the items and our answers. A name in braces in an answer is a function
below, which makes its words of the committed reports and the shipped manifest.

Does not: measure anything, or judge how good an answer is.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from figures import FOLDER, REPOSITORY, Figure, bundle, interval, percent, report, signed, table

from chestxray.evaluation.metrics import N_REPLICATES

ANSWERS = REPOSITORY / "docs" / "checklists.toml"
PAGE = REPOSITORY / "docs" / "checklists.md"

PEOPLE = ("age", "sex", "ethnicity")
"""Columns by which figures would tell whether people are served alike."""

COLUMNS = ("group", "source", "view", *PEOPLE)
"""Columns that are named here where a report has figures by them; it may have many more."""

STATES = ("done", "in part", "not done", "not applicable")
"""With one of these and a colon every answer begins."""

TOP = """\
# Checklists

Two checklists for papers on such models, answered item by item for what ships: what was done, in
part or not at all, and where it stands. There is no paper; the answers are about this repository.
What an item asks for is put in a few words of ours; the checklists have the full text.

`docs/checklists.py` makes this page of [checklists.toml](checklists.toml), the committed
[reports](reports) and the [manifest](../src/chestxray/bundles/default/manifest.json) of the shipped
bundle. Figures read value (lower–upper bound of the 95 % interval, bootstrapped by subject).
"""


def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"{PAGE} is stale" if PAGE.read_text(encoding="utf-8") != page() else 0)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    return "\n".join([TOP, *map(_section, checklists().values())])


@cache
def checklists() -> dict[str, Any]:
    """Each checklist by its name, as the file has it."""
    return tomllib.loads(ANSWERS.read_text(encoding="utf-8"))


def _section(checklist: Mapping[str, Any]) -> str:
    items = checklist["items"]
    answers = [_answer(item["answer"]) for item in items]
    states = Counter(state for state, _ in answers)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES)
    rows = [
        (item["item"], item["asks"], _marked(state), text, _links(item["where"]))
        for item, (state, text) in zip(items, answers, strict=True)
    ]
    about = f"{checklist['about'].strip()}\n\nOf {len(items)} items: {counts}.\n"
    header = ("item", "asks for", "state", "answer", "where")
    return f"## {checklist['name']}\n\n{about}\n{table(header, rows)}"


def _answer(text: str) -> tuple[str, str]:
    """The state and the words of an answer, with its figures."""
    state, _, words = " ".join(text.format_map(_figures()).split()).partition(": ")
    if state not in STATES:
        raise ValueError(f"an answer begins with none of {', '.join(STATES)}: {text.strip()}")
    return state, words[0].upper() + words[1:]


@cache
def _figures() -> dict[str, str]:
    return {name: make() for name, make in MADE_BY.items()}


def _marked(state: str) -> str:
    return f"**{state}**" if state == "not done" else state


def _links(targets: Iterable[str]) -> str:
    return "<br>".join(_link(*target.partition("#")) for target in targets) or "–"


def _link(path: str, hash_: str, heading: str) -> str:
    words = heading.replace("-", " ")
    from_docs = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
    return f"[{Path(path).name}{f': {words}' if words else ''}]({from_docs}{hash_}{heading})"


# --- what the figures are made of


@cache
def evaluations() -> dict[str, dict[str, Any]]:
    """The committed reports of ``chestxray evaluate`` on the shipped bundle, by file name."""
    found = {file.name: _read(file) for file in sorted(FOLDER.glob("*.json"))}
    return {
        name: of
        for name, of in found.items()
        if "operating_points" in of and of["bundle_sha256"] == bundle().sha256
    }


def _with(key: str) -> dict[str, dict[str, Any]]:
    """Those of the evaluations that have it: older reports have not."""
    return {name: of for name, of in evaluations().items() if key in of}


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _training() -> Mapping[str, Any]:
    return bundle().manifest.training


def _each(say: Callable[[Mapping[str, Any]], str], among: Mapping[str, Mapping[str, Any]]) -> str:
    """What there is to say of each report, after its name."""
    return "; ".join(f"[{name}](reports/{name}) {say(of)}" for name, of in among.items())


def _whose(of: Mapping[str, Any]) -> str:
    return f"{of['n']:,} radiographs of {of['n_subjects']:,} subjects"


# --- of the manifest


def finding() -> str:
    return bundle().manifest.finding.positive


def ages() -> str:
    known = bundle().manifest.population.ages
    return "patients of any age" if known is None else f"patients of {known}"


def side_px() -> str:
    return str(bundle().manifest.preprocessing.side_px)


def precision() -> str:
    return bundle().manifest.precision


def evidence_shape() -> str:
    height, width = bundle().manifest.evidence.shape
    return f"{height} × {width}"


def network() -> str:
    return str(_training()["config"]["network"])


def data_sha256() -> str:
    return _short(_training()["data_sha256"])


def versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in _training()["versions"].items())


def initialised_from() -> str:
    return _short(str(_training()["initialised_from"]))


def _short(text: str) -> str:
    """A SHA-256 by its first digits: a cell of a table cannot wrap all of it."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text)


def partitions() -> str:
    facts = _training()
    return (
        f"{facts['n_train']:,} radiographs of {facts['n_subjects_train']:,} subjects trained on, "
        f"{facts['n_heldout']:,} of {facts['n_subjects_heldout']:,} held out, "
        f"seed {facts['config']['seed']}"
    )


def fitted() -> str:
    of = bundle().manifest.calibration
    return f"fitted on {of.fitted_on}, n = {of.n:,}, {percent(of.prevalence)} with the finding"


def operating_points() -> str:
    return "; ".join(
        f"`{name}` {point.threshold:.3f}, {point.rule}"
        for name, point in bundle().manifest.operating_points.items()
    )


# --- of the reports of `evaluate`


def internal() -> str:
    return _each(_summary, {name: of for name, of in evaluations().items() if _is_heldout(of)})


def external() -> str:
    return _each(_summary, {name: of for name, of in evaluations().items() if not _is_heldout(of)})


def _is_heldout(of: Mapping[str, Any]) -> bool:
    return bool(of["split"] == "held-out subjects")


def _summary(of: Mapping[str, Any]) -> str:
    return f"({_whose(of)}) has AUROC {interval(of['auroc'])}"


def unreadable() -> str:
    return _each(lambda of: f"{of['n_unreadable']}", evaluations())


def scored() -> str:
    return _each(
        lambda of: (
            f"{_whose(of)}, {of['n_positive']:,} with the finding, {of['n_negative']:,} without, "
            f"{of['n_refused']} that the input check would refuse, {of['n_unreadable']} unreadable"
        ),
        evaluations(),
    )


def prevalences() -> str:
    return _each(lambda of: percent(of["prevalence"]["folder"]), evaluations())


def discrimination() -> str:
    return f"AUROC: {_each(lambda of: interval(of['auroc']), evaluations())}"


def diagnostic() -> str:
    return _each(
        lambda of: (
            f"at `{of['operating_point']}`: sensitivity {interval(of['sensitivity'])}, "
            f"specificity {interval(of['specificity'])}, precision {interval(of['precision'])}"
        ),
        evaluations(),
    )


def confusion() -> str:
    def counts(of: Mapping[str, Any]) -> str:
        at = of["operating_points"][of["operating_point"]]["confusion"]
        return f"has {at['fp']} false positives and {at['fn']} false negatives"

    return _each(counts, evaluations())


def calibration() -> str:
    ece = f"ECE: {_each(lambda of: interval(of['ece']), evaluations())}"
    with_slope = _with("calibration")
    if not with_slope:
        return f"{ece}. Slope and intercept of the calibration: not done"
    slope = _each(
        lambda of: (
            f"slope {interval(of['calibration']['slope'])}, "
            f"intercept {_signed(of['calibration']['intercept'])}"
        ),
        with_slope,
    )
    return f"{ece}. Calibration: {slope}"


def _signed(figure: Figure) -> str:
    """−0.782 (−1.610 to −0.148)."""
    value, *bounds = (figure[key] for key in ("value", "ci_low", "ci_high"))
    if value is None:
        return "–"
    return (
        f"{signed(value)} ({' to '.join(signed(bound) for bound in bounds if bound is not None)})"
    )


def utility() -> str:
    with_curve = _with("decision_curve")
    if not with_curve:
        return "Net benefit: not done"

    def gained(of: Mapping[str, Any]) -> str:
        above = [at for at in of["decision_curve"] if at["gain"]["value"] > 0]
        return f"at {len(above)} of {len(of['decision_curve'])} thresholds"

    return f"Net benefit above that of treating all and none: {_each(gained, with_curve)}"


def measures() -> str:
    """What is measured of the shipped bundle, and what of it is not."""
    had = [
        "AUROC",
        "accuracy, sensitivity, specificity and precision at named thresholds",
        "predictive values by prevalence",
        "Brier score and expected calibration error",
    ]
    missing: list[str] = []
    for key, name in (
        ("calibration", "slope and intercept of the calibration"),
        ("decision_curve", "net benefit beside that of treating all and none"),
    ):
        (had if _with(key) else missing).append(name)
    text = "; ".join(had)
    return f"{text}. Not done: {'; '.join(missing)}" if missing else text


def evidence() -> str:
    """With its state: what is said of the map depends on whether it was validated."""
    what = "The evidence is an output of the network, made in the pass that decides"
    with_boxes = {
        name: of
        for name, of in _with("evidence").items()
        if "pointing" in (of["evidence"]["boxes"] or {})
    }
    if not with_boxes:
        return f"in part: {what}. To validate that it points at the finding is not done"
    figures = _each(_in_boxes, with_boxes)
    if bundle().manifest.evidence.validated:
        return f"done: {what}. Against boxes that readers drew: {figures}"
    return f"in part: {what}. Against boxes that readers drew it did not pass: {figures}"


def _in_boxes(of: Mapping[str, Any]) -> str:
    boxes, deletion = of["evidence"]["boxes"], of["evidence"]["deletion"]
    return (
        f"({_whose(boxes)}) peak in a box {interval(boxes['pointing'])}, best fixed point "
        f"{interval(boxes['best_fixed_point'])}, pixel AUPRC {interval(boxes['auprc'])}, chance "
        f"{interval(boxes['chance'])}, logit lost at the peak over that in random places "
        f"{_signed(deletion['peak_over_random'])}"
    )


# --- of other reports


def replicates() -> str:
    return f"{N_REPLICATES:,}"


def stress() -> str:
    clinic = report("heldout-stress.json")["clinic"]
    worst = ", ".join(
        f"{name} by {signed(clinic[f'worst_{figure}_change']['change'])}"
        for figure, name in (
            ("auroc", "AUROC"),
            ("sensitivity", "sensitivity"),
            ("specificity", "specificity"),
        )
    )
    return f"What a clinic does to a picture (severities 1 and 2) moves at worst {worst}"


def spread() -> str:
    folds, seeds = report("cross_validation.json"), report("seeds.json")

    def auroc(of: Mapping[str, Any]) -> str:
        return f"{of['summary']['auroc']['mean']:.3f} ± {of['summary']['auroc']['std']:.3f}"

    return (
        f"AUROC of `{folds['config']['name']}` is {auroc(folds)} over {len(folds['folds'])} folds "
        f"and {auroc(seeds)} over {len(seeds['seeds'])} seeds"
    )


def input_check() -> str:
    found = report("input_check.json")
    chests = [*found["chests"].values(), *found["corrupted"]]
    others = list(found["others"].values())
    refused = sum(of["n"] - of["accepted"] for of in others)
    return (
        f"accepted {sum(of['accepted'] for of in chests):,} of "
        f"{sum(of['n'] for of in chests):,} chest radiographs, corrupted ones among them, refused "
        f"{refused} of {sum(of['n'] for of in others)} other pictures"
    )


def people() -> str:
    """Ages and sexes, of the data sets of which they are known."""
    known = {name: of["people"] for name, of in report("data.json").items() if "people" in of}
    said = "; ".join(
        f"{name}: {of['age_years']['min']} to {of['age_years']['max']} years, median "
        f"{of['age_years']['median']:g}, " + ", ".join(f"{s} {n}" for s, n in of["sex"].items())
        for name, of in known.items()
    )
    return f"Age and sex of {said}. The datasheet has them of no other set"


# --- of groups of patients


def _columns() -> list[str]:
    """What the committed reports are broken down by."""
    keys = {"group": "groups", "view": "views"}
    had = {name for name, key in keys.items() if any(of[key] for of in evaluations().values())}
    had.update(*(of["columns"] for of in _with("columns").values()))
    return [name for name in COLUMNS if name in had]


def grouped_by() -> str:
    return f"by {', '.join(_columns())}"


def fairness() -> str:
    had = [name for name in PEOPLE if name in _columns()]
    missing = [name for name in PEOPLE if name not in had]
    told = f"Figures by {', '.join(had)} are in the reports. " if had else ""
    return f"{told}Figures by {', '.join(missing)}: not done"


def heterogeneity() -> str:
    """With its state: whether there are figures by source depends on the reports."""
    by_source = _with("sources")
    if not by_source:
        return f"in part: {discrimination()}. Figures by hospital within a data set: not done"

    def aurocs(of: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{source} {interval(part['auroc'])}" for source, part in of["sources"].items()
        )

    return f"done: AUROC by source: {_each(aurocs, by_source)}"


MADE_BY: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        finding,
        ages,
        side_px,
        precision,
        evidence_shape,
        network,
        data_sha256,
        versions,
        initialised_from,
        partitions,
        fitted,
        operating_points,
        internal,
        external,
        unreadable,
        scored,
        prevalences,
        discrimination,
        diagnostic,
        confusion,
        calibration,
        utility,
        measures,
        evidence,
        replicates,
        stress,
        spread,
        input_check,
        people,
        grouped_by,
        fairness,
        heterogeneity,
    )
}
"""Every figure by the name that answers have in braces."""


if __name__ == "__main__":
    main()
