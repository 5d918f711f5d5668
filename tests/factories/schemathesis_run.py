"""Holds a running service against its own OpenAPI document: Schemathesis, every check on.

Does not: draw radiographs (``schemathesis_hooks`` does), or judge what came out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
CONFIG = TESTS / "service" / "api" / "schemathesis.toml"
MAX_RESPONSE_S = 5


@dataclass(frozen=True)
class Run:
    """What a run says at its end, and counts of what it saw."""

    exit_code: int
    output: str
    report: dict[str, Any]
    checks: Counter[str]
    statuses: Counter[tuple[str, int]]
    """Of (operation, status)."""


def held_against_document(
    base_url: str, key: str, *, seed: int, max_examples: int, folder: Path
) -> Run:
    """Run it against the service at ``base_url``, and leave its reports in ``folder``."""
    report, events = folder / "report.json", folder / "events.ndjson"
    done = subprocess.run(
        [
            Path(sysconfig.get_path("scripts")) / "schemathesis",
            *("--config-file", CONFIG, "run", f"{base_url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--seed", str(seed)),
            *("--checks", "all", "--max-examples", str(max_examples), "--continue-on-failure"),
            *("--max-response-time", str(MAX_RESPONSE_S), "--generation-database", "none"),
            *("--no-color", "--report", "json,ndjson"),
            *("--report-json-path", report, "--report-ndjson-path", events),
        ],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(TESTS), "SCHEMATHESIS_HOOKS": "factories.schemathesis_hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    checks, statuses = Counter[str](), Counter[tuple[str, int]]()
    for line in events.read_text(encoding="utf-8").splitlines():
        seen = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for made in seen.get("checks", {}).values():
            checks.update(check["name"] for check in made)
        for interaction in seen.get("interactions", {}).values():
            if interaction["response"] is not None:
                statuses[seen["label"], interaction["response"]["status_code"]] += 1
    told = json.loads(report.read_text(encoding="utf-8"))
    return Run(done.returncode, done.stdout + done.stderr, told, checks, statuses)
