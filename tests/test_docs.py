"""The documents say what the code does: tables, links and figures are compared with it."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from chestxray.inference import BUNDLED, read_bundle
from chestxray.learning.config import Augmentation, Stage, TrainConfig
from chestxray.service.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


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
        )
        for name, field in model.model_fields.items()
    ]
    assert section("docs/configuration.md", "train-config") == table(
        ("key", "default", "meaning"), rows
    )


def test_the_figures_in_the_readme_are_the_shipped_manifests() -> None:
    manifest = read_bundle(BUNDLED).manifest
    names = ("auroc", "accuracy", "sensitivity", "specificity", "precision")
    rows = []
    for entry in manifest.metrics:
        at = entry["operating_points"][manifest.default_operating_point]
        figures = (
            f"{at[n]['value']:.3f} ({at[n]['ci_low']:.3f}–{at[n]['ci_high']:.3f})" for n in names
        )
        where = f"{entry['dataset']}, {entry['split']}"
        rows.append((where, f"{entry['n']} / {entry['n_subjects']}", *figures))
    header = ("data", "n / subjects", "AUROC", *names[1:])
    assert section("README.md", "figures") == table(header, rows)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(REPOSITORY)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if not (document.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(REPOSITORY)))
def test_commands_outside_the_readme_say_why_no_test_runs_them(document: Path) -> None:
    opened = re.findall(r"^```bash(.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if document.name == "README.md":  # tests/test_fresh_clone.py runs those that are not marked
        opened = [info for info in opened if info.strip()]
    assert all(re.fullmatch(r' not-run="[^"]+"', info) for info in opened)
