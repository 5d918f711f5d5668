"""The page of checklists is what its generator makes, and answers every item once."""

import importlib
import re
import string
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]

CLAIM = [str(number) for number in range(1, 45)]
LETTERS = {
    3: "abc",
    5: "ab",
    6: "abc",
    8: "abc",
    9: "abc",
    12: "abcdefg",
    18: "abcdef",
    20: "abc",
    23: "ab",
    27: "abc",
}
"""Of the 27 items of TRIPOD+AI those that have parts (Collins et al. 2024, table 2)."""
TRIPOD_AI = [f"{number}{part}" for number in range(1, 28) for part in LETTERS.get(number) or [""]]


FIGURE = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}
REPORT = {"auroc": FIGURE, "ece": FIGURE, "groups": {"bacteria": {}}, "views": {}}
"""What ``evaluate`` wrote before it knew of sources, columns and boxes, in part."""


@pytest.fixture(scope="module")
def checklists() -> ModuleType:
    """docs/checklists.py, which is no part of the package and imports docs/figures.py."""
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        return importlib.import_module("checklists")
    finally:
        sys.path.pop(0)


def answers(checklists: ModuleType) -> list[str]:
    return [item["answer"] for of in checklists.checklists().values() for item in of["items"]]


def test_the_page_is_what_the_generator_makes(checklists: ModuleType) -> None:
    # python docs/checklists.py writes it.
    assert checklists.PAGE.read_text(encoding="utf-8") == checklists.page()


@pytest.mark.parametrize(("name", "numbers"), [("claim", CLAIM), ("tripod_ai", TRIPOD_AI)])
def test_every_item_is_there_once_and_in_order(
    checklists: ModuleType, name: str, numbers: list[str]
) -> None:
    assert [item["item"] for item in checklists.checklists()[name]["items"]] == numbers


def test_every_item_is_a_row_of_the_page(checklists: ModuleType) -> None:
    states = "|".join((*checklists.STATES, r"\*\*not done\*\*"))
    rows = re.findall(
        rf"^\| (\w+) \| .+ \| (?:{states}) \| .+ \|$", checklists.page(), re.MULTILINE
    )
    assert rows == [*CLAIM, *TRIPOD_AI]


def test_no_answer_has_a_number_that_was_typed(checklists: ModuleType) -> None:
    by_hand = [re.sub(r"\{\w+\}", "", answer) for answer in answers(checklists)]
    assert [answer for answer in by_hand if re.search(r"\d", answer)] == []


def test_every_figure_is_in_an_answer(checklists: ModuleType) -> None:
    named = {
        name for answer in answers(checklists) for _, name, _, _ in string.Formatter().parse(answer)
    }
    assert named - {None} == set(checklists.MADE_BY)


def test_what_the_reports_lack_is_called_not_done(
    checklists: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checklists, "evaluations", lambda: {"a.json": REPORT})
    assert "Slope and intercept of the calibration: not done" in checklists.calibration()
    assert checklists.utility() == "Net benefit: not done"
    assert "Not done: slope and intercept" in checklists.measures()
    assert checklists.evidence().startswith("in part: ")
    assert checklists.evidence().endswith("is not done")
    assert checklists.grouped_by() == "by group"
    assert checklists.fairness() == "Figures by age, sex, ethnicity: not done"
    assert checklists.heterogeneity().startswith("in part: ")


def test_what_the_reports_have_is_told(
    checklists: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = dict.fromkeys(("pointing", "best_fixed_point", "auprc", "chance"), FIGURE)
    report = REPORT | {
        "calibration": {"slope": FIGURE, "intercept": FIGURE},
        "decision_curve": [{"gain": FIGURE}, {"gain": FIGURE | {"value": -0.1}}],
        "evidence": {
            "boxes": {"n": 61, "n_subjects": 50, **boxes},
            "deletion": {"peak_over_random": FIGURE},
        },
        "columns": {"sex": {}, "view": {}, "licence": {}},
        "sources": {"here": {"auroc": FIGURE}, "there": {"auroc": FIGURE}},
    }
    monkeypatch.setattr(checklists, "evaluations", lambda: {"a.json": report})
    a_json = "[a.json](reports/a.json)"
    shown, from_zero = "0.500 (0.400–0.600)", "+0.500 (+0.400 to +0.600)"
    assert checklists.calibration().endswith(f"{a_json} slope {shown}, intercept {from_zero}")
    assert checklists.utility().endswith(f"{a_json} at 1 of 2 thresholds")
    assert "not done" not in checklists.measures().lower()
    assert (
        f"{a_json} (61 radiographs of 50 subjects) peak in a box {shown}" in checklists.evidence()
    )
    assert checklists.grouped_by() == "by group, view, sex"
    told = "Figures by sex are in the reports. Figures by age, ethnicity: not done"
    assert checklists.fairness() == told
    assert checklists.heterogeneity().startswith("done: ")
    assert checklists.heterogeneity().endswith(f"{a_json} here {shown}, there {shown}")


def test_an_answer_without_a_state_makes_no_page(
    checklists: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"item": "1", "asks": "Title", "answer": "We have one.", "where": []}
    broken = {"claim": {"name": "CLAIM", "about": "", "items": [item]}}
    monkeypatch.setattr(checklists, "checklists", lambda: broken)
    with pytest.raises(ValueError, match="We have one"):
        checklists.page()
