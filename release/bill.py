"""Writes what a wheel brings along when it is installed: its SBOM and its licence list.

    .venv/bin/python release/bill.py dist/*.whl        # writes beside the wheel

The wheel and its dependencies, as ``constraints.txt`` pins them, go into an empty environment in a
temporary folder, and both lists are made from what is then in it. The SBOM is CycloneDX 1.6 by
``cyclonedx-py``; added to it are what that cannot know: our version, the hash of the wheel, the
bundle, and licences that metadata give only in words (``licences``).

Does not: list what wheels carry inside; the licence list names it, and where the texts are.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from licences import OURS, REPOSITORY, licence_of, listed, native, noted
from packaging.utils import canonicalize_name


def install(wheel: Path, environment: Path) -> None:
    """Make an environment that holds ``wheel``, its pinned dependencies and nothing else."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"))
    pins = str(REPOSITORY / "constraints.txt")
    _run(*pip, "install", "--quiet", "--only-binary", ":all:", "--constraint", pins, str(wheel))
    _run(*pip, "check")


def installed_in(environment: Path) -> list[Distribution]:
    """The distributions in an environment, by name; ours is among them."""
    (site_packages,) = environment.glob("lib/python*/site-packages")
    found = distributions(path=[str(site_packages)])
    return sorted(found, key=lambda one: canonicalize_name(one.name))


def bill_of(environment: Path, wheel: Path) -> dict[str, Any]:
    """The SBOM of an environment that holds ``wheel``."""
    written = _run(
        *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
        "--no-validate",  # done below, of what is written in the end
        *("--sv", "1.6", "--pyproject", str(REPOSITORY / "pyproject.toml")),
        str(environment / "bin" / "python"),
    )
    bill: dict[str, Any] = json.loads(written)
    found = {canonicalize_name(one.name): one for one in installed_in(environment)}
    ours = found[canonicalize_name(OURS)]
    bill["metadata"]["component"] |= {
        "version": ours.version,
        "purl": f"pkg:pypi/{OURS}@{ours.version}",
        "hashes": [_sha256(wheel.read_bytes())],
    }
    for component in bill["components"]:
        expression = licence_of(found[canonicalize_name(component["name"])])
        component["licenses"] = [{"expression": expression, "acknowledgement": "declared"}]
    bill["components"].append(_bundle(ours))
    errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    if errors is not None:
        raise ValueError(f"the SBOM is no CycloneDX 1.6: {errors}")
    return bill


def _bundle(ours: Distribution) -> dict[str, Any]:
    """The bundle that ships, as a component; its version is its identity."""
    folder = Path(str(ours.locate_file(f"{OURS}/bundles/default")))
    manifest = (folder / "manifest.json").read_bytes()
    return {
        "type": "machine-learning-model",
        "bom-ref": "bundle",
        "name": json.loads(manifest)["name"],
        "version": hashlib.sha256(manifest).hexdigest(),
        "licenses": [{"expression": "MIT", "acknowledgement": "declared"}],
        "hashes": [_sha256((folder / "model.onnx").read_bytes())],
    }


def _sha256(content: bytes) -> dict[str, str]:
    return {"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}


def licence_list(environment: Path) -> str:
    """The licences of an environment's distributions, as Markdown."""
    found = installed_in(environment)
    names = [canonicalize_name(one.name) for one in found]
    ours = next(one for one in found if one.name == OURS)
    parts = [f"# Licences of {OURS} {ours.version} and what its base install brings", listed(found)]
    if any(name in noted(names) for name in names):
        parts += ["## Not permissive", noted(names)]
    parts += ["## Inside the wheels, on Linux x86-64", native(names)]
    return "\n\n".join(parts) + "\n"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def write_lists(environment: Path, wheel: Path) -> None:
    """Write both lists of an environment that holds ``wheel`` beside it."""
    release = wheel.parent / "-".join(wheel.name.split("-")[:2])
    bill = json.dumps(bill_of(environment, wheel), indent=1)
    Path(f"{release}.cdx.json").write_text(bill + "\n", encoding="utf-8")
    Path(f"{release}-licences.md").write_text(licence_list(environment), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Install a wheel in a temporary folder, and write its lists."""
    if len(arguments) != 1:
        print(f"usage: {Path(__file__).name} WHEEL", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as environment:
        install(Path(arguments[0]), Path(environment))
        write_lists(Path(environment), Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
