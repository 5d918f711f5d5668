"""docs/operations.md against what it speaks of: codes, settings, alerts, panels, times."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chestxray.service import server
from chestxray.service.http.problems import PROBLEMS
from chestxray.service.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")


def test_the_alerts_of_the_page_are_those_of_the_rules() -> None:
    rules = (REPOSITORY / "deploy" / "prometheus-rules.yaml").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(ChestXray\w+)` \|", PAGE, flags=re.MULTILINE)
    assert explained == re.findall(r"- alert: (\w+)", rules)


def test_the_panels_that_the_page_names_are_on_the_dashboard() -> None:
    dashboard = json.loads(
        (REPOSITORY / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8")
    )
    titles = {panel["title"] for panel in dashboard["panels"]}
    for panel in (
        "Requests by API key",
        "Stage duration, p95",
        "Resident memory by worker",
        "Problems by code",
        "Which bundles are at work",
        "Assessed and skipped",
    ):
        assert f"*{panel}*" in PAGE
        assert panel in titles


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", PAGE))
    assert named <= {name.upper() for name in Settings.model_fields}
    assert named


def test_every_status_of_the_page_has_the_code_that_the_service_gives_with_it() -> None:
    named = {(int(status), code) for status, code in re.findall(r"\b(\d{3}) `(\w+)`", PAGE)}
    assert named <= {(status, error.code) for error, (status, _) in PROBLEMS.items()}
    assert {code for _, code in named} >= {"overloaded", "slow_body", "not_ready"}


def test_the_times_of_an_end_are_the_servers() -> None:
    said = re.search(r"after (\d+) s at the least, .* and (\d+) s at the\s+most", PAGE, re.DOTALL)
    assert said
    assert [int(s) for s in said.groups()] == [server.LINGER_S, server.DRAIN_TIMEOUT_S]


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (["--bundle", "/nonexistent"], {}, 1),
        (["--port", "0"], {f"{PREFIX}QUEUE_SISE": "1"}, 2),
        (["--host", "0.0.0.0", "--port", "0"], {}, 2),  # noqa: S104 - it does not get that far
    ],
)
def test_a_start_that_cannot_be_ends_with_one_line_and_the_code_of_the_page(
    arguments: list[str], variables: dict[str, str], code: int
) -> None:
    assert re.search(rf"^\| {code} \|", PAGE, flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "chestxray", "serve", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
