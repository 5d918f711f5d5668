"""The wheel and the sdist: what is in them, and that the wheel alone serves."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import httpx
import pytest
from bill import installed_in
from licences import brought_by
from packaging.utils import canonicalize_name

from chestxray import __version__
from factories.release import REPOSITORY, Release, bare_variables
from factories.servers import address_told

PACKAGE = REPOSITORY / "src" / "chestxray"
MANIFEST = "chestxray/bundles/default/manifest.json"

pytestmark = pytest.mark.timeout(600)  # whichever is first builds and installs


def members(archive: Path) -> dict[str, bytes]:
    """The files in a wheel or an sdist by name, an sdist's without its folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in opened.namelist()}
    with tarfile.open(archive) as opened:
        found = {}
        for one in opened.getmembers():
            content = opened.extractfile(one)
            assert content, f"{one.name} is no plain file"
            found[one.name.split("/", 1)[1]] = content.read()
        return found


def metadata(archive: Path) -> Message:
    name = f"chestxray-{__version__}.dist-info/METADATA" if archive.suffix == ".whl" else "PKG-INFO"
    return message_from_bytes(members(archive)[name])


def tracked(folder: str) -> set[str]:
    """The files below a folder that git tracks or would."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder],  # noqa: S607
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    names = listed.stdout.decode().split("\0")
    return {name for name in names if name and (REPOSITORY / name).is_file()}


def test_twine_finds_nothing_to_say(release: Release) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", release.wheel, release.sdist],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_the_wheel_holds_the_package_and_nothing_else(release: Release) -> None:
    found = {name for name in members(release.wheel) if ".dist-info/" not in name}
    assert found == {name.removeprefix("src/") for name in tracked("src")}
    assert MANIFEST in found
    assert "chestxray/bundles/default/model.onnx" in found
    assert "chestxray/service/page/web/index.html" in found
    assert {name for name in found if name.startswith("chestxray/examples/")}
    kinds = {Path(name).suffix for name in found}
    source = {".py", ".typed", ".jinja", ".html", ".css", ".js", ".svg"}
    assert kinds == source | {".onnx", ".json", ".jpeg"}


def test_the_wheel_carries_the_licence(release: Release) -> None:
    name = f"chestxray-{__version__}.dist-info/licenses/LICENSE"
    assert members(release.wheel)[name] == (REPOSITORY / "LICENSE").read_bytes()


def test_the_sdist_holds_tracked_files_only(release: Release) -> None:
    found = set(members(release.sdist))
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "README.md", "Makefile"} <= found
    assert {name for name in found if name.startswith("tests/")}
    assert found - tracked(".") == {"PKG-INFO"}


def test_the_sdist_and_the_repository_build_the_same_wheel(release: Release) -> None:
    assert release.wheel_of_repository.name == release.wheel.name
    here, from_sdist = members(release.wheel_of_repository), members(release.wheel)
    assert here.keys() == from_sdist.keys()
    assert [name for name in here if here[name] != from_sdist[name]] == []


def test_the_version_comes_from_one_place(release: Release, environment: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" in project["dynamic"]
    assert metadata(release.wheel)["Version"] == __version__
    assert metadata(release.sdist)["Version"] == __version__
    assert run(environment, "chestxray", "--version").strip() == __version__


def test_the_metadata_say_what_an_index_shows(release: Release) -> None:
    found = metadata(release.wheel)
    assert found["License-Expression"] == "MIT"
    assert found["License-File"] == "LICENSE"
    assert found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown"
    assert "Not a medical device" in found["Summary"]
    extras = {"train", "evaluate", "client", "pacs", "parquet", "cluster"}
    assert extras <= set(found.get_all("Provides-Extra", []))


def run(environment: Path, program: str, *arguments: str | Path) -> str:
    """What a program of the environment prints, started elsewhere and by a bare shell."""
    done = subprocess.run(
        [environment / "bin" / program, *arguments],
        cwd="/",
        env=bare_variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def package_in(environment: Path) -> Path:
    found = run(environment, "python", "-c", "import chestxray; print(chestxray.__path__[0])")
    return Path(found.strip())


@contextmanager
def serving(environment: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The environment's server, once it says where it listens: the process and the address."""
    with subprocess.Popen(
        [environment / "bin" / "chestxray", "serve", "--port", "0"],
        cwd=folder,
        env=bare_variables(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, address_told(process)
        finally:
            process.kill()


def test_the_installed_wheel_brings_what_it_asks_for_and_no_more(environment: Path) -> None:
    """No PyTorch, no tool of ours, not even pip."""
    found = {canonicalize_name(one.name) for one in installed_in(environment)}
    assert found == {"chestxray", *brought_by()}
    assert not found & {"torch", "matplotlib", "pytest", "pip", "setuptools"}


def test_the_installed_wheel_does_not_lean_on_the_repository(environment: Path) -> None:
    assert package_in(environment).is_relative_to(environment)
    paths = run(environment, "python", "-c", "import sys; print(*sys.path, sep='\\n')")
    assert str(REPOSITORY) not in paths


def test_the_installed_wheel_serves_and_ends_with_0_on_sigterm(
    environment: Path, tmp_path: Path
) -> None:
    shipped = hashlib.sha256((PACKAGE.parent / MANIFEST).read_bytes()).hexdigest()
    examples = sorted((package_in(environment) / "examples").iterdir())
    assert {example.name.split("-")[0] for example in examples} == {"normal", "pneumonia"}
    with serving(environment, tmp_path) as (process, address):
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/metadata").json()["bundle_sha256"] == shipped
            assert client.get("/").headers["content-type"].startswith("text/html")
            for example in examples:
                answer = client.post("/predict", files={"file": example.read_bytes()}).json()
                assert answer["label"] == example.name.split("-")[0].upper()
                assert answer["model"]["bundle_sha256"] == shipped
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list(tmp_path.iterdir())


def test_the_installed_wheel_predicts(environment: Path) -> None:
    examples = sorted((package_in(environment) / "examples").iterdir())
    lines = run(environment, "chestxray", "predict", "--json", *examples).splitlines()
    labels = [json.loads(line)["prediction"]["label"] for line in lines]
    assert labels == [example.name.split("-")[0].upper() for example in examples]


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_bundle_of_which_one_byte_has_changed_stops_the_start(
    environment: Path, tmp_path: Path, name: str
) -> None:
    bundle = shutil.copytree(package_in(environment) / "bundles" / "default", tmp_path / "bundle")
    content = bytearray((bundle / name).read_bytes())
    at = len(content) // 2 if name == "model.onnx" else content.index(b'"model_sha256"') + 20
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    (bundle / name).write_bytes(content)
    done = subprocess.run(
        [environment / "bin" / "chestxray", "serve", "--port", "0", "--bundle", bundle],
        cwd=tmp_path,
        env=bare_variables(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"chestxray: .* not the one that its manifest names\n", done.stderr)


def test_the_pages_commands_print_the_bundles_identity(environment: Path, tmp_path: Path) -> None:
    """docs/release.md, "Which bundle is this?", line by line."""
    text = (REPOSITORY / "docs" / "release.md").read_text(encoding="utf-8")
    (block,) = re.findall(
        r'^```bash not-run="[^"]*identity[^"]*"\n(.*?)^```', text, re.DOTALL | re.MULTILINE
    )
    package = package_in(environment)
    shipped = hashlib.sha256((package.parent / MANIFEST).read_bytes()).hexdigest()
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    assert len(lines) >= 3
    with serving(environment, tmp_path) as (_, address):
        for line in lines:
            command = line.replace("http://127.0.0.1:8000", address)
            command = command.replace("BUNDLE", str(package / "bundles" / "default"))
            command = command.replace("FILE", str(package / "examples" / "normal-1.jpeg"))
            done = subprocess.run(
                ["bash", "-c", command],  # noqa: S607
                cwd=tmp_path,
                env=bare_variables() | {"PATH": f"{environment / 'bin'}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert shipped in done.stdout, line
