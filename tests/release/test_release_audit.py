"""The audit by the real pip-audit against a service on loopback: silence is never a pass."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import audit
import pytest

from factories.release import REPOSITORY
from factories.vulnerability_service import (
    Known,
    VulnerabilityService,
    vulnerability,
    vulnerability_service,
)

PROGRAM = REPOSITORY / "release" / "audit.py"
PINS = "numpy==2.4.6\npillow==13.0.0  # draws\nuvloop==0.23.0\n"
CLEAN: Known = {"numpy": [], "pillow": [], "uvloop": []}
ACCEPTED = '[{id}]\nreason = "we never call it"\nuntil = {until}\n'


@dataclass
class Audit:
    """Runs the program on ``pins`` in a folder of its own."""

    folder: Path
    pins: str = PINS
    accepted: str = ""

    def run(self, service: VulnerabilityService) -> tuple[int, str, str]:
        pins, accepted = self.folder / "pins.txt", self.folder / "accepted.toml"
        pins.write_text(self.pins, encoding="utf-8")
        accepted.write_text(self.accepted, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, PROGRAM, pins, accepted],
            env={"PATH": "/usr/bin:/bin", **service.variables(self.folder / "cache")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def asking(self, known: Known, status: int = 200) -> tuple[int, str, str]:
        with vulnerability_service(self.folder, known, status) as service:
            return self.run(service)


@pytest.fixture
def of_pins(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_clean_pins_pass_with_their_number(of_pins: Audit) -> None:
    code, out, _ = of_pins.asking(CLEAN)
    assert (code, out) == (0, "3 of 3 distributions audited, none known to be vulnerable\n")


def test_a_vulnerability_fails_and_is_named_with_its_fix(of_pins: Audit) -> None:
    code, out, _ = of_pins.asking({**CLEAN, "pillow": [vulnerability(1, "13.0.1")]})
    assert code == 1
    assert out.splitlines() == [
        "pillow 13.0.0: CVE-2026-1, fixed in 13.0.1",
        "3 of 3 distributions audited, known vulnerabilities: 1",
    ]


@pytest.mark.parametrize("identifier", ["GHSA-1", "CVE-2026-1"])
def test_an_accepted_vulnerability_passes_but_not_in_silence(
    of_pins: Audit, identifier: str
) -> None:
    of_pins.accepted = ACCEPTED.format(id=identifier, until="2999-01-01")
    code, out, _ = of_pins.asking({**CLEAN, "pillow": [vulnerability(1, "13.0.1")]})
    assert code == 0
    assert "accepted: pillow 13.0.0: CVE-2026-1, fixed in 13.0.1: we never call it\n" in out
    assert "none known to be vulnerable but 1 accepted\n" in out


def test_an_acceptance_ends_on_its_day(of_pins: Audit) -> None:
    of_pins.accepted = ACCEPTED.format(id="GHSA-1", until="2026-01-01")
    code, out, _ = of_pins.asking({**CLEAN, "pillow": [vulnerability(1, "13.0.1")]})
    assert code == 1
    assert "accepted" not in out


def test_accepting_one_vulnerability_accepts_no_other(of_pins: Audit) -> None:
    of_pins.accepted = ACCEPTED.format(id="GHSA-1", until="2999-01-01")
    both = [vulnerability(1, "13.0.1"), vulnerability(2, "13.0.1")]
    code, out, _ = of_pins.asking({**CLEAN, "pillow": both})
    assert code == 1
    assert "known vulnerabilities: 1\n" in out


def test_what_the_service_does_not_know_is_named(of_pins: Audit) -> None:
    code, out, _ = of_pins.asking({"numpy": [], "pillow": []})
    assert code == 0
    assert out.splitlines() == [
        "not audited, unknown to the service: uvloop",
        "2 of 3 distributions audited, none known to be vulnerable",
    ]


def test_a_service_that_knows_nothing_is_asked_once_and_is_no_pass(of_pins: Audit) -> None:
    """A mirror of the index, which has no such service, answers 404 to everything."""
    with vulnerability_service(of_pins.folder, {}) as service:
        code, out, _ = of_pins.run(service)
        assert service.asked == ["numpy"]
    assert code == 0
    assert out.startswith("NOT AUDITED: ")
    assert "none known" not in out


def test_a_service_that_fails_is_no_pass(of_pins: Audit) -> None:
    code, out, _ = of_pins.asking(CLEAN, status=503)
    assert code == 0
    assert out.startswith("NOT AUDITED: the service does not answer")
    assert out.count("\n") == 1


def test_no_network_is_no_pass(of_pins: Audit) -> None:
    with vulnerability_service(of_pins.folder, CLEAN) as service:
        pass  # nobody listens there any more
    code, out, _ = of_pins.run(service)
    assert code == 0
    assert out.startswith("NOT AUDITED: ")
    assert out.count("\n") == 1


def test_a_network_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vulnerability_service(tmp_path, CLEAN, silent=True) as service:
        for name, value in service.variables(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        began_s = time.monotonic()
        with pytest.raises(audit.NotAuditedError, match="no answer within"):
            audit.ask(["numpy==2.4.6"], began_s + 2)
        assert time.monotonic() - began_s < 10
    assert audit.ANSWER_WITHIN_S < 60


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.4.6,!=3", "not a pin at all"])
def test_a_line_that_is_no_pin_fails(of_pins: Audit, line: str) -> None:
    of_pins.pins = PINS + line + "\n"
    code, out, err = of_pins.asking(CLEAN)
    assert (code, out) == (1, "")
    assert err.startswith("audit failed: pins.txt: ")


def test_a_broken_pip_audit_fails(of_pins: Audit) -> None:
    """A version of numpy that no version can be gets past our reading, not past pip-audit."""
    of_pins.pins = "numpy==2.*\n"
    code, out, err = of_pins.asking(CLEAN)
    assert (code, out) == (1, "")
    assert err.startswith("audit failed: ")


def test_the_committed_pins_and_acceptances_can_be_read() -> None:
    assert "numpy" in audit.read_pins(audit.PINS)
    assert audit.read_accepted(audit.ACCEPTED, "2026-01-01") == {}
