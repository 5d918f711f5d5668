"""What a reader types on a first afternoon, typed: every block of these pages, in order.

The pages are read in a folder that has the repository's files and an environment, as theirs has. A
block that serves runs on, as in a terminal of its own, until its page ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from factories.pacs import free_port
from factories.servers import is_ready

REPOSITORY = Path(__file__).parents[1]
PAGES = ["docs/getting-started.md", "docs/tutorial.md", "docs/reference/python.md"]
ADDRESS = "http://127.0.0.1:8000"
READY_WITHIN_S = 60
ENDED_WITHIN_S = 30

BLOCK = re.compile(r"^```(bash|python)(.*)\n((?:.*\n)*?)```$", flags=re.MULTILINE)

pytestmark = pytest.mark.timeout(600)


class Page(NamedTuple):
    """A page that was typed: where, and what came out, by block."""

    folder: Path
    printed: dict[str, str]

    def answer_to(self, command: str) -> str:
        """What the one block with ``command`` in it printed."""
        (found,) = [out for block, out in self.printed.items() if command in block]
        return found


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return typed("docs/getting-started.md", tmp_path_factory.mktemp("started"))


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return typed("docs/tutorial.md", tmp_path_factory.mktemp("tutorial"))


def typed(page: str, folder: Path) -> Page:
    """Run every block of ``page`` that is not marked, in order, in ``folder``."""
    for name in ("configs", "docs", "examples", "src"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / ".venv").symlink_to(sys.prefix)
    port = free_port()
    printed = {}
    serving: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {"CHESTXRAY_PORT": str(port)}  # 8000 may be taken here
    try:
        for block in blocks(page):
            code = block.code.replace(ADDRESS, f"http://127.0.0.1:{port}")
            if "chestxray serve" in code:
                serving.append(serve(code, folder, environment))
                continue
            program = ["bash", "-e"] if block.language == "bash" else [".venv/bin/python"]
            done = subprocess.run(
                [*program, "-c", code],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{page}: {code}\n{done.stdout}{done.stderr}"
            printed[block.code] = done.stdout
    finally:
        for process in serving:
            os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
            process.wait(ENDED_WITHIN_S)
    return Page(folder, printed)


class Block(NamedTuple):
    language: str
    code: str


def blocks(page: str) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Block(language, code)
        for language, marks, code in BLOCK.findall(text)
        if "not-run" not in marks
    ]


def serve(code: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the service as typed, and wait until it is ready."""
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", code],  # noqa: S607
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_WITHIN_S
    try:
        while not is_ready(int(environment["CHESTXRAY_PORT"])):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_one_that_this_test_finds(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    opened = re.findall(r"^```(?:bash|python)", text, flags=re.MULTILINE)
    assert len(opened) == len(BLOCK.findall(text))
    assert blocks(page)


def test_the_samples_look_like_what_the_block_before_them_printed(tutorial: Page) -> None:
    text = (REPOSITORY / "docs/tutorial.md").read_text(encoding="utf-8")
    samples = re.findall(r"^```bash\n([^`]+)```\n(?:[^`]|`[^`])*?^```text\n([^`]+)```", text, re.M)
    assert len(samples) == text.count("```text")
    for code, sample in samples:
        printed = shape(tutorial.printed[code]).splitlines()
        assert [line for line in shape(sample).splitlines() if line not in printed] == []


def shape(text: str) -> str:
    """A text without its figures, which differ between processors, and its alignment."""
    return re.sub(r" +", " ", re.sub(r"[\d.]+", "#", text))


def test_getting_started_answers_on_the_command_line_and_over_http_alike(started: Page) -> None:
    lines = started.answer_to("predict src/chestxray").splitlines()
    assert [line.split()[0] for line in lines] == ["NORMAL"] * 2 + ["PNEUMONIA"] * 2
    printed = started.answer_to("curl")
    answer, end = json.JSONDecoder().raw_decode(printed)
    assert answer["label"] == "PNEUMONIA"
    assert json.loads(printed[end:])["bundle_sha256"] == answer["model"]["bundle_sha256"]
    assert "not_a_chest_radiograph" in started.answer_to("predict_batch")
    assert len(list((started.folder / "heatmaps").glob("*.png"))) == 4


def test_the_reference_begins_with_a_program_that_runs(tmp_path: Path) -> None:
    (printed,) = typed("docs/reference/python.md", tmp_path).printed.values()
    assessed, answer = printed.splitlines()
    assert assessed.startswith("answered")
    label, probability = answer.split()
    assert label == "PNEUMONIA"
    assert 0.5 < float(probability) < 1


def test_the_tutorials_clinic_gets_the_sensitivity_back_that_the_auroc_does_not_miss(
    tutorial: Page,
) -> None:
    reports = {
        name: json.loads((tutorial.folder / "runs/tutorial" / name / "report.json").read_text())
        for name in ("report-hospital", "report-clinic", "report-later")
    }
    figures = {
        name: (r["auroc"]["value"], r["sensitivity"]["value"]) for name, r in reports.items()
    }
    assert all(auroc > 0.98 for auroc, _ in figures.values()), figures
    (_, at_home), (_, before), (_, after) = figures.values()
    assert before < min(at_home, after) - 0.2, figures
    assert "recalibrating pays" in tutorial.answer_to("chestxray calibrate")


def test_the_tutorials_own_bundle_answers(tutorial: Page) -> None:
    served = tutorial.answer_to("curl")
    manifest = json.loads(
        (tutorial.folder / "runs/tutorial/clinic-bundle/manifest.json").read_text("utf-8")
    )
    assert manifest["name"] in served
    assert '"label":"PNEUMONIA"' in served.replace(" ", "")
    assert tutorial.answer_to("heatmap=True").startswith("PNEUMONIA")
    with Image.open(tutorial.folder / "runs/tutorial/evidence.png") as picture:
        assert picture.size == (224, 224)


def test_the_tutorials_run_has_the_files_that_it_names(tutorial: Page) -> None:
    text = (REPOSITORY / "docs/tutorial.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w./]+)` \|", text, flags=re.MULTILINE)
    assert "curves.png" in named
    assert all((tutorial.folder / "runs/tutorial/run" / name).is_file() for name in named)
