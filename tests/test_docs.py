"""The documents say what the code does: tables, links and figures are compared with it."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from chestxray.errors import LimitError, RefusedError, UnreadableError
from chestxray.inference import BUNDLED, read_bundle
from chestxray.learning.config import Augmentation, EvidenceLoss, Stage, TrainConfig
from chestxray.pacs.config import Destination, DestinationTls, Node, NodeTls, Peer, Route
from chestxray.pacs.judging import NOT_ROUTED
from chestxray.service.http.problems import PROBLEMS
from chestxray.service.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])

TYPED_BY = {
    "README.md": "tests/test_fresh_clone.py",
    "docs/getting-started.md": "tests/test_tutorial.py",
    "docs/tutorial.md": "tests/test_tutorial.py",
}
"""Documents whose commands a test runs, less those that are marked."""


def section(document: str, name: str) -> str:
    """What stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, flags=re.DOTALL)
    assert found, f"{document} has no section {name}"
    return found[1]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(
        "|" + "|".join("---" if c == "---" else f" {c} " for c in line) + "|\n" for line in lines
    )


def default_of(field: Any) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    if field.default_factory is not None or field.default is None:
        return "–"
    default = field.default
    if isinstance(default, BaseModel):
        return "see below"
    return f"`{default}`"


def test_the_table_of_settings_is_the_codes() -> None:
    rows = [
        (f"`{PREFIX}{name.upper()}`", default_of(field), str(field.description))
        for name, field in Settings.model_fields.items()
    ]
    assert section("docs/configuration.md", "settings") == table(
        ("variable", "default", "meaning"), rows
    )


def test_the_table_of_training_keys_is_the_codes() -> None:
    rows = [
        (f"`{prefix}{name}`", default_of(field), str(field.description))
        for prefix, model in (
            ("", TrainConfig),
            ("stages.", Stage),
            ("augmentation.", Augmentation),
            ("evidence.", EvidenceLoss),
        )
        for name, field in model.model_fields.items()
    ]
    assert section("docs/configuration.md", "train-config") == table(
        ("key", "default", "meaning"), rows
    )


def test_the_table_of_the_nodes_keys_is_the_codes() -> None:
    rows = [
        (f"`{prefix}{name}`", default_of(field), str(field.description))
        for prefix, model in (
            ("node.", Node),
            ("node.tls.", NodeTls),
            ("peer.", Peer),
            ("destination.", Destination),
            ("destination.tls.", DestinationTls),
            ("route.", Route),
        )
        for name, field in model.model_fields.items()
    ]
    assert section("docs/pacs.md", "pacs-config") == table(("key", "default", "meaning"), rows)


def test_the_reasons_of_refusals_are_those_that_there_are() -> None:
    """Every code of an error by which reading, judging or queueing can refuse an instance."""
    listed = re.findall(r"^\| `(\w+)` \|", section("docs/pacs.md", "pacs-refusals"), re.MULTILINE)
    refusals = {
        error.code
        for error, (status, _) in PROBLEMS.items()
        if issubclass(error, (UnreadableError, LimitError, RefusedError))
        and not error.__subclasses__()
    }
    refusals -= {"animated_file", "too_many_files"}  # no instance is one
    assert set(listed) == refusals | {NOT_ROUTED, "crashed", "file_missing"}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """docs/figures.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("figures", REPOSITORY / "docs" / "figures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "MODEL_CARD.md", "docs/data.md"])
def test_the_figures_of_a_page_are_what_the_committed_reports_give(
    figures: ModuleType, page: str
) -> None:
    assert page in figures.PAGES
    assert figures.sections(page)
    assert figures.stale(page) == []  # python docs/figures.py writes them


def test_every_section_that_can_be_made_is_on_exactly_one_page(figures: ModuleType) -> None:
    opened = [
        name
        for page in figures.PAGES
        for name in re.findall(r"<!-- figures:(\w+) -->", (REPOSITORY / page).read_text("utf-8"))
    ]
    assert sorted(opened) == sorted(figures.MADE_BY)
    closed = [name for page in figures.PAGES for name in figures.sections(page)]
    assert closed == opened


@pytest.mark.parametrize(
    "report",
    [
        "heldout.json",
        "heldout-stress.json",
        "nih.json",
        "adults.json",
        "elsewhere.json",
        "recalibration.json",
        "input_check.json",
    ],
)
def test_the_committed_reports_are_of_the_bundle_that_ships(report: str) -> None:
    assert _report(report)["bundle_sha256"] == read_bundle(BUNDLED).sha256


def test_the_datasheet_counts_the_split_that_the_shipped_bundle_was_trained_on() -> None:
    split = _report("data.json")["split"].values()
    training = read_bundle(BUNDLED).manifest.training
    assert sum(of["heldout"]["n"] for of in split) == training["n_heldout"]
    assert sum(of["all"]["n"] for of in split) == training["n_train"] + training["n_heldout"]


@pytest.mark.parametrize(
    ("report", "sources"),
    [
        ("heldout.json", ["chest_xray"]),
        ("heldout-stress.json", ["chest_xray"]),
        ("nih.json", ["nih", "rsna_normal"]),
    ],
)
def test_the_heldout_reports_are_of_all_heldout_subjects(report: str, sources: list[str]) -> None:
    split = _report("data.json")["split"]
    assert _report(report)["n"] == sum(split[source]["heldout"]["n"] for source in sources)


def _report(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (REPOSITORY / "docs" / "reports" / name).read_text(encoding="utf-8")
    )
    return found


FIGURES_BY_HAND = (
    # Xin, Li, Yi 2021, Emergency Radiology, doi 10.1007/s10140-021-01954-x, abstract.
    "its AUROC was 0.95 on the data set's own test split (n = 624) and 0.54 on NIH radiographs",
    # Names of things, which measure nothing: a licence, and papers by their identifiers.
    "CC BY 4.0",
    "10.1145/3287560.3287596",
    "10.1016/j.cell.2018.02.010",
    "10.1007/s10140-021-01954-x",
    "1705.02315",
)


def test_the_model_card_has_no_figure_by_hand_but_those_with_a_source(figures: ModuleType) -> None:
    text = (REPOSITORY / "MODEL_CARD.md").read_text(encoding="utf-8")
    by_hand = " ".join(figures.SECTION.sub("", text).split())
    for allowed in FIGURES_BY_HAND:
        assert allowed in by_hand
        by_hand = by_hand.replace(allowed, "")
    assert re.findall(r".{0,40}(?:\d[.,]\d|\d\s?%|%).{0,20}", by_hand) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(REPOSITORY)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if not (document.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(REPOSITORY)))
def test_a_command_is_run_by_a_test_or_says_why_none_runs_it(document: Path) -> None:
    opened = re.findall(r"^ *```bash(.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    if str(document.relative_to(REPOSITORY)) in TYPED_BY:
        opened = [info for info in opened if info.strip()]
    # With a backtick in what follows them, three backticks open no block.
    assert all(re.fullmatch(r' not-run="[^"`]+"', info) for info in opened)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(REPOSITORY)))
def test_a_test_that_a_mark_names_is_there(document: Path) -> None:
    reasons = re.findall(r'not-run="([^"]+)"', document.read_text(encoding="utf-8"))
    named = [name for reason in reasons for name in re.findall(r"tests/[\w/]+\.py", reason)]
    assert [name for name in named if not (REPOSITORY / name).is_file()] == []


@pytest.mark.parametrize(("document", "test"), TYPED_BY.items())
def test_a_test_that_runs_a_documents_commands_reads_it(document: str, test: str) -> None:
    assert document in (REPOSITORY / test).read_text(encoding="utf-8")
