"""Asks whether the pins have known vulnerabilities, and says so when nobody answers.

    .venv/bin/python release/audit.py [PINS [ACCEPTED]]

``pip-audit`` exits with 0 and "No known vulnerabilities found" when its service knows none of the
distributions, as behind a mirror of the package index, which has no such service. That must not
look like a pass. So this ends in one of these ways:

    NOT AUDITED: …                                      0  no service, or not in time
    n of m distributions audited, none known to be …    0  those that were not are named
    … known vulnerabilities: n                          1  each is named
    audit failed: …                                     1  a line is no pin, or pip-audit broke

``accepted_vulnerabilities.toml`` holds those that we have judged, each with its reason and the day
from which it is no longer accepted.

Does not: look for another service. Set ``HTTPS_PROXY`` where one leads to the real one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

FOLDER = Path(__file__).parent
PINS = FOLDER.parent / "constraints.txt"
ACCEPTED = FOLDER / "accepted_vulnerabilities.toml"
ASKED_FIRST = "numpy"
"""Every service knows it. Asked alone first: if it is not known, there is no service, and nobody is
asked two hundred times more."""
ANSWER_WITHIN_S = 50
CONNECTION_TIMEOUT_S = 10
SIGNS_OF_NO_SERVICE = ("requests.exceptions.", "ServiceError", "Could not connect to ")
"""What pip-audit's last words have in them when network or service are at fault."""


class NotAuditedError(Exception):
    """No service answered."""


class AuditFailedError(Exception):
    """``pip-audit`` or what it is given is wrong."""


def read_pins(path: Path) -> dict[str, str]:
    """The lines ``name==version`` of a file, by name.

    Raises:
        AuditFailedError: a line is not one exact version.
    """
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as exc:
            raise AuditFailedError(f"{path.name}: {text}: {exc}") from exc
        if [one.operator for one in requirement.specifier] != ["=="]:
            raise AuditFailedError(f"{path.name}: {text} is not one exact version")
        pins[requirement.name] = text
    return pins


def read_accepted(path: Path, today: str) -> dict[str, str]:
    """The accepted vulnerabilities that still are on ``today`` (ISO 8601): reason by identifier."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        identifier: str(entry["reason"])
        for identifier, entry in entries.items()
        if today < entry["until"].isoformat()
    }


def ask(lines: list[str], deadline_s: float) -> list[dict[str, Any]]:
    """What ``pip-audit`` says of pins: its ``dependencies``, before ``time.monotonic()`` is there.

    Raises:
        NotAuditedError: the network or the service failed, or time was up.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as pins:
        pins.write("\n".join(lines) + "\n")
        pins.flush()
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pip_audit", "--requirement", pins.name),
                    *("--no-deps", "--disable-pip", "--progress-spinner", "off"),
                    *("--format", "json", "--desc", "off", "--vulnerability-service", "pypi"),
                    *("--timeout", str(CONNECTION_TIMEOUT_S)),
                ],
                capture_output=True,
                text=True,
                check=False,
                timeout=max(deadline_s - time.monotonic(), 0.1),
            )
        except subprocess.TimeoutExpired as exc:
            raise NotAuditedError(f"no answer within {ANSWER_WITHIN_S} s") from exc
    try:
        answered: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as exc:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        if any(sign in done.stderr for sign in SIGNS_OF_NO_SERVICE):
            raise NotAuditedError(f"the service does not answer ({said[-1][:200]})") from exc
        raise AuditFailedError(f"pip-audit: {said[-1]}") from exc
    return answered


def audited(answered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that the service knew."""
    return [one for one in answered if "skip_reason" not in one]


def main(pins_path: Path = PINS, accepted_path: Path = ACCEPTED) -> int:
    """Audit, print, and return the exit code."""
    deadline_s = time.monotonic() + ANSWER_WITHIN_S
    try:
        pins = read_pins(pins_path)
        first = [pins[ASKED_FIRST]] if ASKED_FIRST in pins else list(pins.values())
        answered = ask(first, deadline_s)
        if audited(answered):
            answered = ask(list(pins.values()), deadline_s)
    except AuditFailedError as exc:
        print(f"audit failed: {exc}", file=sys.stderr)
        return 1
    except NotAuditedError as exc:
        return _not_audited(str(exc))
    known = audited(answered)
    if not known:
        return _not_audited("the network leads to no service that knows these distributions")
    accepted = read_accepted(accepted_path, datetime.now(UTC).date().isoformat())
    n_found = n_accepted = 0
    for one in known:
        for found in one["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            row = f"{one['name']} {one['version']}: {found['id']}, fixed in {fixed}"
            reasons = [
                accepted[name] for name in (found["id"], *found["aliases"]) if name in accepted
            ]
            n_accepted += bool(reasons)
            n_found += not reasons
            print(f"accepted: {row}: {reasons[0]}" if reasons else row)
    unknown = sorted({one["name"] for one in answered} - {one["name"] for one in known})
    if unknown:
        print(f"not audited, unknown to the service: {', '.join(unknown)}")
    said = f"{len(known)} of {len(answered)} distributions audited"
    if n_found:
        print(f"{said}, known vulnerabilities: {n_found}")
        return 1
    print(
        f"{said}, none known to be vulnerable" + (f" but {n_accepted} accepted" * bool(n_accepted))
    )
    return 0


def _not_audited(why: str) -> int:
    print(f"NOT AUDITED: {why}. Nothing is known of vulnerabilities in {PINS.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
