"""Writes the figures of the pages from the committed reports, or checks that they are theirs.

    .venv/bin/python docs/figures.py            # writes
    .venv/bin/python docs/figures.py --check    # exits 1 and names what is stale

What stands between ``<!-- figures:NAME -->`` and ``<!-- /figures -->`` is what the function NAME
below makes of ``docs/reports/*.json``. ``REPORTS`` names the command that made each of them.

Does not: measure anything. A number that no report has is written by hand, with its source, and
tests/test_docs.py knows of it.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from chestxray import __version__
from chestxray.evaluation.metrics import negative_predictive_value, positive_predictive_value
from chestxray.inference import BUNDLED, Bundle, read_bundle

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "docs" / "reports"
PAGES = ("README.md", "MODEL_CARD.md", "docs/data.md")

_SHARED = "../shared/data"
_OTHERS = f"{_SHARED}/others"
_CHILDREN = f"--data {_SHARED}/chest_xray/train"
_NIH = f"--data {_OTHERS}/nih --data {_OTHERS}/rsna_normal --data {_OTHERS}/rsna_lungs"
_LEARNED = f"{_CHILDREN} {_NIH} --data {_SHARED}/adults"
_BOXES = f"--boxes {_OTHERS}/boxes.csv"
_LUNGS = f"--lungs {_OTHERS}/lung_masks_kaggle_train_224.npz"
_NIH_LUNGS = f"--lungs {_OTHERS}/lung_masks_rsna_normal_224.npz"
_EVALUATE = ".venv/bin/chestxray evaluate"
_HELD = f"{_EVALUATE} {_LEARNED} --heldout"
_HELDOUT = f"{_HELD} --source chest_xray {_LUNGS} --stress --out DIR"
_QUICK = (
    f".venv/bin/chestxray train configs/quick.toml {_CHILDREN} "
    "--init ../shared/weights/imagenet_resnet18_conv1_to_layer3.safetensors "
    f"--external {_SHARED}/adults --out DIR"
)
_ADULTS = f"--data {_OTHERS}/nih --data {_OTHERS}/rsna_normal --data {_SHARED}/adults"
_THIRD = " ".join(
    f"--data {_OTHERS}/{name}" for name in ("ieee8023", "openist", "pk_tb", "actualmed")
)
_PLACES = (
    "--heldout children=chest_xray --heldout adults=nih,rsna_normal,adults --place elsewhere=…"
)
REPORTS = {
    "heldout.json": ("report.json", _HELDOUT),
    "heldout-stress.json": ("stress.json", _HELDOUT),
    "nih.json": (
        "report.json",
        f"{_HELD} --source nih --source rsna_normal {_BOXES} {_NIH_LUNGS} --out DIR",
    ),
    "lungs-only.json": (
        "report.json",
        f"{_HELD} --source rsna_lungs {_BOXES} --out DIR",
    ),
    "adults.json": (
        "report.json",
        f"{_EVALUATE} --data {_SHARED}/adults --prevalence 0.1 --out DIR",
    ),
    "elsewhere.json": ("report.json", f"{_EVALUATE} {_THIRD} --out DIR"),
    "without-nih.json": (
        "report.json",
        f"{_EVALUATE} {_ADULTS} {_BOXES} --bundle RUN/bundle --out DIR",
    ),
    "cross_validation.json": ("cross_validation.json", f"{_QUICK} --folds 5"),
    "seeds.json": ("seeds.json", f"{_QUICK} --seeds 5"),
    "recalibration.json": (
        "recalibration.json",
        f".venv/bin/python benchmarks/recalibration.py {_PLACES} {_LEARNED} --out FILE",
    ),
    "input_check.json": (
        "input_check.json",
        ".venv/bin/python benchmarks/input_check.py --data ../shared/data --out FILE",
    ),
    "data.json": (
        "data.json",
        ".venv/bin/python benchmarks/data_facts.py --data ../shared/data --out FILE",
    ),
}
"""Every report: the file that it is a copy of, and the command that made that file."""

JUDGED = {
    "heldout.json": "children, held-out subjects",
    "nih.json": "adults (NIH), held-out patients",
    "adults.json": "adults (NIH), the set of 101",
    "elsewhere.json": "elsewhere",
}
"""The data that the shipped bundle was judged on."""
LEFT_OUT = {"without-nih.json": "*another bundle:* adults (NIH), learned from children alone"}
"""Bundles of the same recipe, not shipped, that have seen nothing of what they are judged on."""

SCORES = ("auroc", "accuracy", "sensitivity", "specificity", "precision")
CALIBRATION = ("brier", "ece")
STRESSED = ("auroc", "sensitivity", "specificity")
SHOWN_SEVERITIES = (1, 2, 5)
GOALS = {"auroc": 0.02, "sensitivity": 0.05, "specificity": 0.05}
"""How much a figure may fall under what a clinic does to a picture (severities 1 and 2)."""
PREVALENCES = (0.05, 0.1, 0.3)
"""Prevalences for which predictive values are given, beside those the reports have."""

SECTION = re.compile(r"(<!-- figures:(\w+) -->\n)(.*?)(<!-- /figures -->)", flags=re.DOTALL)

Figure = Mapping[str, float | None]


class MissingReportError(Exception):
    """A report is not there yet."""


def sections(page: str) -> dict[str, str]:
    """The marked sections of a page, by name."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return {name: body for _, name, body, _ in SECTION.findall(text)}


def stale(page: str) -> list[str]:
    """The sections of a page that are not what the reports give."""
    return [name for name, body in sections(page).items() if body != MADE_BY[name]()]


def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    check = sys.argv[1:] == ["--check"]
    changed: list[str] = []
    left: list[str] = []

    def made(page: str, name: str, old: str) -> str:
        try:
            new = MADE_BY[name]()
        except MissingReportError as exc:
            left.append(f"{page}: {name}: left as it is, since {exc}")
            return old
        if new != old:
            changed.append(f"{page}: {name}: {'stale' if check else 'written'}")
        return new

    for page in PAGES:
        file = REPOSITORY / page
        old = file.read_text(encoding="utf-8")

        def rewritten(found: re.Match[str], page: str = page) -> str:
            opened, name, body, closed = found.groups()
            return f"{opened}{made(page, name, body)}{closed}"

        new = SECTION.sub(rewritten, old)
        if not check and new != old:
            file.write_text(new, encoding="utf-8")
    sys.stdout.writelines(f"{line}\n" for line in [*changed, *left])
    sys.exit(bool(left or (check and changed)))


# --- what the sections are made of


@cache
def report(name: str) -> dict[str, Any]:
    """A committed report. Raises MissingReportError."""
    if name not in REPORTS:
        raise KeyError(name)
    file = FOLDER / name
    if not file.is_file():
        raise MissingReportError(f"there is no {name}, made by {REPORTS[name][1]}")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@cache
def bundle() -> Bundle:
    """The shipped one."""
    return read_bundle(BUNDLED)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "|" + "|".join("---" if c == "---" else f" {c} " for c in line) + "|\n" for line in lines
    )


def interval(figure: Figure) -> str:
    """0.997 (0.994–0.999)."""
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f} ({figure['ci_low']:.3f}–{figure['ci_high']:.3f})"


def signed(change: float) -> str:
    rounded = round(change, 3)
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def size(of: Mapping[str, Any]) -> str:
    return f"{of['n']:,} / {of['n_subjects']:,}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def ref(name: str) -> str:
    return f"[{name}](docs/reports/{name})"


def made_by(name: str) -> str:
    """Which file of which command a report is; what the report itself says goes first."""
    file, command = REPORTS[name]
    return f"{ref(name)} is the `{file}` of `{report(name).get('command', command)}`."


def note(*parts: str) -> str:
    """A paragraph under a table."""
    return "\n" + " ".join(parts) + "\n"


def from_(name: str, *parts: str) -> str:
    """The line under a table: what was measured, and how anyone can do it again."""
    return note(*parts, made_by(name))


INTERVALS = "Intervals are of 95 %, bootstrapped by subject."


def heldout_text() -> str:
    return _text("heldout.json")


def adults_text() -> str:
    return _text("adults.json")


def _text(name: str) -> str:
    where = JUDGED[name]
    return f"{where[0].upper()}{where[1:]}: {_of(report(name))}."


def _of(found: Mapping[str, Any]) -> str:
    return (
        f"n = {found['n']} of {found['n_subjects']} subjects, "
        f"operating point {found['operating_point']}"
    )


# --- README


def overview() -> str:
    rows = []
    for name, where in (JUDGED | LEFT_OUT).items():
        found = report(name)
        parts = {where: found}
        if name == "nih.json":
            parts |= {f"{where}, {view}": part for view, part in found["views"].items()}
        for label, of in parts.items():
            rows.append([label, size(of), *(interval(of[figure]) for figure in SCORES)])
    return table(("data", "n / subjects", "AUROC", *SCORES[1:]), rows) + note(
        f"Operating point `{report('heldout.json')['operating_point']}`. {INTERVALS}",
        f"{', '.join(map(ref, JUDGED | LEFT_OUT))}.",
    )


# --- model card


def details() -> str:
    manifest, training = bundle().manifest, bundle().manifest.training
    rows = [
        ("name", f"`{manifest.name}`"),
        ("version of the package", __version__),
        ("SHA-256 of the bundle", f"`{report('heldout.json')['bundle_sha256']}`"),
        ("SHA-256 of `model.onnx`", f"`{manifest.model_sha256}`"),
        ("made", f"{manifest.created}, commit `{training['commit']}`"),
        ("precision", manifest.precision),
        ("input", f"{manifest.preprocessing.side_px} × {manifest.preprocessing.side_px} px, grey"),
        *(
            (
                f"threshold of `{name}`"
                + (" (default)" if name == manifest.default_operating_point else ""),
                f"{point.threshold:.3f}: {point.rule}",
            )
            for name, point in manifest.operating_points.items()
        ),
        (
            "uncertain",
            f"calibrated logit within {manifest.uncertainty.margin:.2f} of the threshold's",
        ),
        (
            "input check",
            f"threshold {manifest.input_check.threshold:g}: {manifest.input_check.rule}",
        ),
    ]
    return table(("", ""), rows)


def training() -> str:
    facts = bundle().manifest.training
    stages = ", ".join(
        f"{stage['epochs']} at {stage['side_px']} px" for stage in facts["config"]["stages"]
    )
    held = (
        f"{facts['n_heldout']:,} radiographs of {facts['n_subjects_heldout']:,} subjects, "
        f"seed {facts['config']['seed']}"
    )
    rows = [
        (
            "trained on",
            f"{facts['n_train']:,} radiographs of {facts['n_subjects_train']:,} subjects",
        ),
        ("held out", held),
        ("SHA-256 of the data", f"`{facts['data_sha256']}`"),
        ("began with", str(facts["initialised_from"])),
        ("epochs", stages),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
        ("time for these", f"{facts['wall_s'] / 60:.0f} minutes"),
    ]
    return table(("", ""), rows) + note(
        "From the [manifest](src/chestxray/bundles/default/manifest.json), written by",
        "`chestxray train`.",
    )


def _by_operating_point(name: str, data: str) -> str:
    found = report(name)
    rows = []
    for point, at in found["operating_points"].items():
        counts = at["confusion"]
        rows.append(
            [
                f"`{point}` ({at['threshold']:.3f})",
                *(interval(at[figure]) for figure in SCORES[1:]),
                " / ".join(str(counts[key]) for key in ("tp", "fp", "tn", "fn")),
            ]
        )
    header = ("operating point (threshold)", *SCORES[1:], "TP / FP / TN / FN")
    told = (
        f"{data}, {found['split']}: n = {found['n']} of {found['n_subjects']} subjects,",
        f"{found['n_positive']} {found['labels']['positive']},",
        f"{found['n_negative']} {found['labels']['negative']};",
        f"the input check would have refused {found['n_refused']};",
        f"{found['n_unreadable']} could not be read. {INTERVALS}",
    )
    return f"AUROC {interval(found['auroc'])}.\n\n{table(header, rows)}{from_(name, *told)}"


def heldout() -> str:
    return _by_operating_point("heldout.json", "Children")


def nih() -> str:
    return _by_operating_point("nih.json", "Adults (NIH)")


def adults() -> str:
    return _by_operating_point("adults.json", "Adults (NIH)")


def elsewhere() -> str:
    return _by_operating_point("elsewhere.json", "Elsewhere")


def left_out() -> str:
    rows = [
        [where, size(found), *(interval(found[figure]) for figure in SCORES)]
        for name, where in LEFT_OUT.items()
        for found in (report(name),)
    ]
    return table(("data", "n / subjects", "AUROC", *SCORES[1:]), rows) + note(
        f"Each at its own default operating point. {INTERVALS}", *map(made_by, LEFT_OUT)
    )


def evidence() -> str:
    rows = []
    judged = {
        name: JUDGED.get(name, "lungs alone (NIH), held-out patients")
        for name in ("nih.json", "lungs-only.json", "adults.json", "heldout.json")
    }
    for name, where in judged.items():
        found = report(name)["evidence"]
        boxes, lungs, deletion = found["boxes"], found["lungs"], found["deletion"]
        rows += [
            (what, where, size(of), interval(of[figure]))
            for what, of, figure in (
                ("peak in a box", boxes, "pointing"),
                ("the same for the best fixed point", boxes, "best_fixed_point"),
                ("AUPRC of pixels, within a radiograph", boxes, "auprc"),
                ("AUPRC of pixels, in one pool", boxes, "auprc_pooled"),
                ("area of the boxes: chance for all of these", boxes, "chance"),
                ("share of the evidence within the lungs", (lungs or {}).get("positive"), "share"),
                ("logit lost under a patch at the peak", deletion, "at_peak"),
                ("the same in random places", deletion, "at_random"),
                ("the one over the other", deletion, "peak_over_random"),
            )
            if of is not None and figure in of
        ]
    return table(("figure", "data", "n / subjects", "value"), rows) + note(
        f"Of radiographs with {bundle().manifest.finding.positive}. {INTERVALS}",
        *map(made_by, ("nih.json", "lungs-only.json")),
        f"{ref('adults.json')}, {ref('heldout.json')}.",
    )


def given_away() -> str:
    rows = [
        [
            row["what"],
            f"{row['one']} / {row['other']}",
            row["truth"],
            JUDGED[name],
            f"{row['n_one']} / {row['n_other']}",
            interval(row["auroc"]),
        ]
        for name in JUDGED
        for row in report(name)["given_away"]
    ]
    header = ("what", "one / other", "among", "data", "n", "AUROC of the logit")
    return table(header, rows) + note(INTERVALS, f"{', '.join(map(ref, JUDGED))}.")


def groups() -> str:
    rows = []
    for name, group in report("heldout.json")["groups"].items():
        figure = "sensitivity" if "sensitivity" in group else "specificity"
        rows.append(
            [
                name,
                group["truth"],
                size(group),
                figure,
                interval(group[figure]),
                str(group["n_refused"]),
            ]
        )
    header = ("group", "truth", "n / subjects", "figure", "value", "refused")
    return table(header, rows) + from_("heldout.json", f"{heldout_text()} {INTERVALS}")


def views() -> str:
    found = report("nih.json")
    rows = [
        [
            view,
            size(part),
            f"{part['n_positive']} / {part['n_negative']}",
            *(interval(part[figure]) for figure in SCORES),
        ]
        for view, part in found["views"].items()
    ]
    counts = f"{found['labels']['positive']} / {found['labels']['negative']}"
    header = ("view", "n / subjects", counts, "AUROC", *SCORES[1:])
    return table(header, rows) + from_("nih.json", f"{_text('nih.json')} {INTERVALS}")


def predictive_values() -> str:
    found = {"held-out": report("heldout.json"), "adults": report("adults.json")}
    prevalences = {
        **dict.fromkeys(PREVALENCES, ""),
        **{
            row["prevalence"]: f" ({row['whose']})"
            for row in _predictive(found["held-out"])
            if row["whose"] == "asked"
        },
        found["adults"]["prevalence"]["folder"]: " (adults)",
        found["held-out"]["prevalence"]["folder"]: " (held-out)",
    }
    rows = []
    for prevalence, whose in sorted(prevalences.items()):
        row = [f"{percent(prevalence)}{whose}"]
        for of in found.values():
            rates = (of["sensitivity"]["value"], of["specificity"]["value"], prevalence)
            given = [r for r in _predictive(of) if math.isclose(r["prevalence"], prevalence)]
            for name, value_of in (
                ("ppv", positive_predictive_value),
                ("npv", negative_predictive_value),
            ):
                row.append(interval(given[0][name]) if given else f"{value_of(*rates):.3f}")
        rows.append(row)
    header = ("prevalence", "PPV, held-out", "NPV, held-out", "PPV, adults", "NPV, adults")
    return table(header, rows) + note(
        f"{heldout_text()} {adults_text()} {INTERVALS}",
        "Without an interval: computed from that sensitivity and specificity for this table.",
        f"{ref('heldout.json')}, {ref('adults.json')}.",
    )


def _predictive(found: dict[str, Any]) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = found["operating_points"][found["operating_point"]][
        "predictive_values"
    ]
    return values


def calibration() -> str:
    fitted = bundle().manifest.calibration
    rows = []
    for name, where in JUDGED.items():
        found = report(name)
        rows.append(
            [
                where,
                size(found),
                percent(found["prevalence"]["folder"]),
                *(interval(found["calibration"][figure]) for figure in ("slope", "intercept")),
                *(interval(found[figure]) for figure in CALIBRATION),
            ]
        )
    header = ("data", "n / subjects", "prevalence", "slope", "intercept", "Brier score", "ECE")
    return (
        f"Fitted on {fitted.fitted_on}: n = {fitted.n}, "
        f"weighted to a prevalence of {percent(fitted.prevalence)}, "
        f"temperature {fitted.temperature:.2f}, bias {fitted.bias:.2f}.\n\n"
        + table(header, rows)
        + note(f"ECE of 15 bins. {INTERVALS}", f"{', '.join(map(ref, JUDGED))}.")
    )


def recalibration() -> str:
    found = report("recalibration.json")
    rows = []
    for name, place in found["places"].items():
        before, after = place["before"], place["after"]
        row = [name, size(place)]
        for figure in ("slope", "ece"):
            quartiles = after[figure]
            row += [
                f"{before[figure]:.2f}",
                f"{quartiles['median']:.2f} ({quartiles['lower']:.2f}–{quartiles['upper']:.2f})",
            ]
        rows.append(row)
    header = ("place", "n / subjects", "slope", "slope after", "ECE", "ECE after")
    return table(header, rows) + from_(
        "recalibration.json",
        f"After: {found['n_labelled']} radiographs labelled, the other subjects judge; median and",
        f"quartiles of {found['n_draws']} draws.",
    )


def uncertain() -> str:
    rows = []
    for name, where in JUDGED.items():
        found = report(name)
        part = found["uncertain"]
        rows.append(
            [
                where,
                str(found["n"]),
                str(part["n"]),
                percent(part["coverage"]),
                interval(part["error_certain"]),
                interval(part["error_uncertain"]),
            ]
        )
    header = ("data", "n", "uncertain", "coverage", "error where certain", "error where uncertain")
    return table(header, rows) + note(
        f"Operating point {report('heldout.json')['operating_point']}.",
        f"Coverage is the share that is not uncertain. {INTERVALS}",
        f"{', '.join(map(ref, JUDGED))}.",
    )


def duplicates() -> str:
    found = report("heldout.json")
    once = found["duplicates"]["counted_once"]
    rows = [
        [what, size(of), *(interval(of[figure]) for figure in SCORES)]
        for what, of in (("all", found), ("each duplicate once", once))
    ]
    header = ("radiographs", "n / subjects", "AUROC", *SCORES[1:])
    copies = found["duplicates"]["n_copies"]
    text = f"{heldout_text()} {copies} of them are copies of another, to the byte. {INTERVALS}"
    return table(header, rows) + from_("heldout.json", text)


def stress_worst() -> str:
    found = report("heldout-stress.json")
    rows = []
    for figure in STRESSED:
        worst = found["clinic"][f"worst_{figure}_change"]
        goal = GOALS[figure]
        rows.append(
            [
                figure if figure != "auroc" else "AUROC",
                interval(found["clean"][figure]),
                signed(worst["change"]),
                f"{_words(worst['corruption'])}, severity {worst['severity']} ({worst['level']})",
                f"−{goal:.2f}",
                "met" if worst["change"] >= -goal else "**not met**",
            ]
        )
    header = ("figure", "clean", "worst change", "under", "goal: no lower than", "")
    return table(header, rows) + from_("heldout-stress.json", _stress_text())


def stress() -> str:
    rows = []
    for name, severities in report("heldout-stress.json")["corruptions"].items():
        for at in severities:
            if at["severity"] in SHOWN_SEVERITIES:
                changes = (signed(at[f"{figure}_change"]) for figure in STRESSED)
                rows.append(
                    [
                        _words(name),
                        str(at["severity"]),
                        at["level"],
                        *changes,
                        percent(at["flipped"]),
                        percent(at["accepted"]),
                    ]
                )
    header = (
        "corruption",
        "severity",
        "what it does",
        "AUROC",
        "sensitivity",
        "specificity",
        "labels flipped",
        "accepted",
    )
    return table(header, rows) + from_("heldout-stress.json", _stress_text())


def _stress_text() -> str:
    found = report("heldout-stress.json")
    return (
        f"Training data, held-out subjects: {_of(found)}. Changes are from the clean figures; "
        "the intervals of the figures themselves are in the file."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def same_radiograph() -> str:
    variants = report("heldout-stress.json")["same_radiograph"]
    rows = [
        [
            _variant(name),
            str(of["n"]),
            "–" if of["p95"] is None else f"{of['p95']:.3f}",
            percent(of["within_0_05"]),
        ]
        for name, of in variants.items()
    ]
    header = (
        "stored as",
        "n",
        "95th percentile of the change of probability",
        "changes of 0.05 or less",
    )
    return table(header, rows) + from_(
        "heldout-stress.json",
        "Training data, held-out subjects, evenly chosen.",
        "Each is compared with the answer for the file as it is.",
    )


def _variant(name: str) -> str:
    kind, _, value = name.partition("_")
    if kind == "size":
        return f"{value} × the size, PNG"
    return f"PNG, {value[: -len('_bit')]} bit" if kind == "png" else f"JPEG, quality {value}"


def shortcuts() -> str:
    stressed = report("heldout-stress.json")
    black = stressed["corruptions"]["lungs_blacked_out"][-1]
    held, others = report("heldout.json"), report("adults.json")
    rows = [
        [
            "seven grey-level statistics, logistic regression",
            *(_floor(r, "grey_statistics") for r in (held, others)),
        ],
        [
            "size of the file, logistic regression",
            *(_floor(r, "size_bytes") for r in (held, others)),
        ],
        [f"the model, lungs blacked out ({black['level']})", interval(black["auroc"]), "–"],
        ["the model", interval(held["auroc"]), interval(others["auroc"])],
    ]
    header = ("AUROC of", "held-out subjects", "adults")
    return table(header, rows) + note(
        f"{heldout_text()} {adults_text()}",
        "The regressions are fitted and tested within the data set, in",
        f"{held['shortcuts']['n_folds']} folds by subject. {INTERVALS}",
        f"{ref('heldout.json')}, {ref('heldout-stress.json')}, {ref('adults.json')}.",
    )


def _floor(found: dict[str, Any], name: str) -> str:
    floor = found["shortcuts"][name]
    return "–" if floor is None else interval(floor["auroc"])


def spread() -> str:
    folds, seeds = report("cross_validation.json"), report("seeds.json")
    columns: dict[str, dict[str, Any]] = {}
    for what, found, runs in (("folds", folds, "folds"), ("seeds", seeds, "seeds")):
        columns[f"{len(found[runs])} {what}, held-out"] = found["summary"]
        for other, summary in found["external"].items():
            columns[f"{len(found[runs])} {what}, {other}"] = summary
    rows = [
        [
            {"auroc": "AUROC", "ece": "ECE", "brier": "Brier score"}.get(figure, figure),
            *(f"{of[figure]['mean']:.3f} ± {of[figure]['std']:.3f}" for of in columns.values()),
        ]
        for figure in (*SCORES, *CALIBRATION)
    ]
    sizes = [run["n"] for run in folds["folds"]]
    return table(("figure", *columns), rows) + note(
        f"Mean and standard deviation over runs of `{folds['config']['name']}`, each at its own",
        f"default operating point. The held-out sides of the folds have {min(sizes)} to",
        f"{max(sizes)} radiographs and together all {sum(sizes):,}.",
        made_by("cross_validation.json"),
        made_by("seeds.json"),
    )


CHESTS = {
    "chest_xray": "children, held-out subjects",
    "nih": "adults (NIH), held-out patients",
    "rsna_normal": "the same, all normal",
    "adults": "adults (NIH), the set of 101",
    "originals": "full-size originals of children (most were trained on, small)",
    "hannover": "Hannover, COVID-19",
    "ieee8023": "case reports",
    "openist": "India, normal",
    "pk_tb": "Pakistan",
    "tb_qatar": "tuberculosis, films photographed",
    "figure1": "Figure 1, COVID-19",
    "actualmed": "Actualmed",
}
OTHERS = {
    "lateral_chest": "lateral chests",
    "CT_slice": "CT slices",
    "breast_ultrasound": "ultrasound of breasts",
    "mammogram": "mammograms",
    "hand": "hands",
    "knee": "knees",
    "knee_implant": "knees with implants",
    "bone": "other bones",
    "natural": "photographs",
}


def input_check() -> str:
    found = report("input_check.json")
    corrupted = found["corrupted"]
    fewest = min(corrupted, key=lambda of: of["accepted"] / of["n"])
    worst = (
        f"held-out children, the worst of {len(corrupted)} corruptions of severity 1 and 2: "
        f"{_words(fewest['corruption'])} ({fewest['level']})"
    )
    everything = {key: sum(of[key] for of in corrupted) for key in ("n", "accepted")}
    rows = [
        *([CHESTS[name], "accept", *_accepted(of)] for name, of in found["chests"].items()),
        [worst, "accept", *_accepted(fewest)],
        ["all of these corruptions together", "accept", *_accepted(everything)],
        *([OTHERS[name], "refuse", *_accepted(of)] for name, of in found["others"].items()),
    ]
    return table(("", "it should", "n", "accepted", "refused"), rows) + from_(
        "input_check.json",
        f"Of the held-out children one in {found['heldout_every']} was corrupted.",
    )


def _accepted(of: Mapping[str, Any]) -> list[str]:
    return [str(of["n"]), str(of["accepted"]), str(of["n"] - of["accepted"])]


def negatives() -> str:
    found = report("input_check.json")
    rows = [
        [
            CHESTS[name],
            *(str(of[key]) for key in ("n", "negatives_noticed", "negatives_same_label")),
            str(of["inverted"]),
        ]
        for name, of in found["chests"].items()
    ]
    header = (
        "data",
        "n",
        "negatives noticed",
        "same label as upright",
        "upright taken for a negative",
    )
    return table(header, rows) + from_(
        "input_check.json", f"Operating point {found['operating_point']}."
    )


# --- data sheet


def _from_data(*parts: str) -> str:
    command = report("data.json")["command"]
    return note(*parts, f"[data.json](reports/data.json), made by `{command}`.")


def composition() -> str:
    data = report("data.json")
    train, held = data["train"], data["heldout"]
    rows = [
        [name, of["truth"], size(of), size(held["groups"][name])]
        for name, of in train["groups"].items()
    ]
    rows += [
        [f"all {truth}", truth, size(of), size(held["truths"][truth])]
        for truth, of in train["truths"].items()
    ]
    rows.append(["all", "", size(train), size(held)])
    header = ("group", "truth", "n / subjects", "of these held out from the shipped bundle")
    return table(header, rows) + _from_data()


def subjects() -> str:
    data = report("data.json")["train"]
    of, leak = data["subjects"], data["split_by_image"]
    return _from_data(
        f"{of['n_with_several']} of {data['n_subjects']:,} subjects have more than one radiograph,",
        f"{of['n_radiographs_of_those']:,} of the {data['n']:,} between them;",
        f"`{of['most']['subject']}` alone has {of['most']['n']}.",
        f"Had {leak['n_heldout']} radiographs been held out at random, by image,",
        f"{percent(leak['share_leaked'])} of them would show a subject that was trained on",
        f"(mean of {leak['n_splits']} random splits).",
    )


def copies() -> str:
    data = report("data.json")["train"]
    of = data["duplicates"]
    names = ", ".join(f"`{Path(path).name}`" for path in data["irregular_names"])
    return _from_data(
        f"{of['n_pairs']} pairs of files are equal to the byte. They form {of['n_sets']} sets,",
        f"with {of['n_copies']} files more than needed; {of['n_sets_of_several_subjects']} of the",
        f"sets span several subjects and {of['n_sets_of_both_truths']} both truths.",
        f"Files with an irregular name: {names}.",
    )


def files() -> str:
    data = report("data.json")
    rows = []
    for name, where in (("train", "this copy"), ("originals", "originals"), ("adults", "adults")):
        for truth, of in data[name]["files"].items():
            modes = ", ".join(f"{mode} {n:,}" for mode, n in of["modes"].items())
            rows.append(
                [
                    where,
                    truth,
                    f"{data[name]['truths'][truth]['n']:,}",
                    f"{of['width_px']['mean']:.0f} × {of['height_px']['mean']:.0f}",
                    f"{of['size_bytes']['mean'] / 1000:.1f}",
                    f"{of['size_bytes']['median'] / 1000:.1f}",
                    modes,
                    f"{of['grey']['mean']:.3f} ± {of['grey']['std']:.3f}",
                ]
            )
    header = (
        "data",
        "truth",
        "n",
        "mean px",
        "mean kB",
        "median kB",
        "stored as",
        "mean grey, 0 to 1",
    )
    coloured = sum(
        of["n_coloured"] for name in ("train", "originals") for of in data[name]["files"].values()
    )
    return table(header, rows) + (
        f"\nFiles of this copy or of the originals with any colour in them: {coloured}.\n"
        + _from_data()
    )


def external() -> str:
    data = report("data.json")
    adults, originals = data["adults"], data["originals"]
    rows = [["adults, all", *_truths(adults), f"{adults['n_subjects']:,}"]]
    rows += [
        [f"adults, view {view}", *_truths(of), str(of["n_subjects"])]
        for view, of in adults["views"].items()
    ]
    rows.append(["originals", *_truths(originals), str(originals["n_subjects"])])
    people = adults["people"]
    age = people["age_years"]
    sexes = ", ".join(f"{sex} {n}" for sex, n in people["sex"].items())
    return table(("data", *bundle().manifest.finding.labels, "subjects"), rows) + (
        f"\nAge in the adults' set: {age['min']} to {age['max']} years, median {age['median']:g}; "
        f"{people['n_under_18']} of its radiographs are of people under 18. Sex: {sexes}. "
        f"{originals['n_of_heldout_subjects']} of the {originals['n']} originals are of held-out "
        "subjects; the shipped bundle was trained on small copies of the others. Not chests: "
        f"{data['not_chest']['natural']} photographs, {data['not_chest']['bone']} bone X-rays.\n"
        + _from_data()
    )


def sources() -> str:
    others = report("data.json")["others"]
    labels = bundle().manifest.finding.labels
    rows = []
    for name, of in others["sources"].items():
        row = [name]
        for truth in labels:
            views = ", ".join(f"{view} {n:,}" for view, n in sorted(of["views"][truth].items()))
            n = of["truths"][truth]["n"]
            row.append(f"{n:,} ({views})" if n else "–")
        published = ", ".join(f"{said} {n:,}" for said, n in of["publishable"].items()) or "–"
        rows.append([*row, f"{of['n_subjects']:,}", f"{of['n_without_label']:,}", published])
    header = ("source", *labels, "subjects of these", "without a label", "publishable")
    return table(header, rows) + (
        f"\n{others['n_subjects_of_several']:,} of the {others['n_subjects']:,} subjects are in "
        "several sources.\n" + _from_data()
    )


def split() -> str:
    rows = [
        [source, size(of["all"]), size(of["heldout"])]
        for source, of in report("data.json")["split"].items()
    ]
    return table(("source", "n / subjects", "of these held out"), rows) + _from_data()


def _truths(of: dict[str, Any]) -> list[str]:
    return [str(of["truths"][truth]["n"]) for truth in bundle().manifest.finding.labels]


MADE_BY: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        overview,
        details,
        training,
        heldout,
        nih,
        adults,
        elsewhere,
        left_out,
        evidence,
        given_away,
        groups,
        views,
        predictive_values,
        calibration,
        recalibration,
        uncertain,
        duplicates,
        stress_worst,
        stress,
        same_radiograph,
        shortcuts,
        spread,
        input_check,
        negatives,
        composition,
        subjects,
        copies,
        files,
        external,
        sources,
        split,
    )
}
"""Every section by its name."""


if __name__ == "__main__":
    main()
