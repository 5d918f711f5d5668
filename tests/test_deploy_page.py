"""What docs/operations.md says of sizing, of bundles that change and of backup."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from chestxray.inference import BUNDLED
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.deployment import DEPLOY, Service, service_process, wait_for
from factories.requests import radiograph_png

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
REPORT: dict[str, Any] = json.loads(
    (REPOSITORY / "docs" / "reports" / "performance.json").read_text(encoding="utf-8")
)


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


# --- Sizing ---------------------------------------------------------------------------------------


def test_the_figures_for_sizing_are_those_of_the_report() -> None:
    said = re.findall(r"^\| (?:CPU|req).* \| ([\d.]+).* \| ([\d.]+).* \|$", PAGE, re.MULTILINE)
    for column, on in enumerate(["originals", "small"]):
        (row,) = [
            of
            for of in REPORT["rows"]
            if (of["what"], of["on"], of["connections"]) == ("chestxray serve", on, 8)
        ]
        cpu_ms, per_s, per_s_of_a_core = (float(line[column]) for line in said)
        assert (cpu_ms, per_s) == (round(row["cpu_ms"], 1), round(row["per_s"], 1))
        assert per_s_of_a_core == pytest.approx(row["per_s"] / REPORT["machine"]["cores"], abs=0.06)
    assert REPORT["date"] in section("Sizing")


def test_a_png_costs_as_much_more_than_a_jpeg_as_the_page_says() -> None:
    cpu_ms = {of["on"]: of["cpu_ms"] for of in REPORT["rows"] if of["benchmark"] == "decoding"}
    said = re.findall(r"(\d+) ms \((\d+) bits\)", section("Sizing"))
    assert [bits for _, bits in said] == ["8", "16"]
    for more_ms, bits in said:
        more = cpu_ms[f"PNG of {bits} bits, originals"] - cpu_ms["JPEG, originals"]
        assert round(more) == int(more_ms)


def test_the_memory_after_ordinary_load_is_the_reports() -> None:
    (goal,) = [of for of in REPORT["goals"] if of["what"] == "resident memory after the load"]
    (said,) = re.findall(r"Ordinary\s+load leaves (\d+) MB", section("Sizing"))
    assert int(said) == int(goal["value"])


# --- Several models, a new bundle in the shadow ---------------------------------------------------


@contextmanager
def asking(service: Service) -> Iterator[httpx.Client]:
    headers = {"X-API-Key": service.key}
    url = f"http://127.0.0.1:{service.port}"
    with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
        yield http


def bundle_in(folder: Path, *, seed: int = 0, **changes: object) -> Path:
    folder.mkdir(parents=True)
    return write_tiny_bundle(folder, seed=seed, **changes)


def test_several_models_answer_as_the_page_asks_them(tmp_path: Path) -> None:
    said = section("Several models")
    bundle_in(tmp_path / "current")
    bundle_in(tmp_path / "effusion", finding=OTHER_FINDING)
    (bundles,) = re.findall(r"`CHESTXRAY_BUNDLE=(\S+)`", said)
    assert re.findall(r"--bundle (\S+)", said) == bundles.split(",")
    asked = re.findall(r'127\.0\.0\.1:8000(/predict|/metadata)(\?model=\w+)"', said)
    assert [path for path, _ in asked] == ["/predict", "/metadata"]
    variable = {"CHESTXRAY_BUNDLE": bundles.replace("/srv/bundles", str(tmp_path))}
    with service_process(tmp_path, **variable) as service, asking(service) as http:
        (path, query), (facts, of) = asked
        answer = http.post(path + query, files={"file": radiograph_png()}).raise_for_status()
        assert answer.json()["label"] in {"DRY", "EFFUSION"}
        metadata = http.get(facts + of).raise_for_status().json()
        assert metadata["finding"] == OTHER_FINDING
        assert [model["name"] for model in metadata["models"]] == ["pneumonia", "effusion"]
        assert answered_by(service) == metadata["models"][0]["bundle_sha256"]


def test_a_shadow_is_counted_under_the_name_that_the_page_gives_it(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"```bash.*\n([^`]+--shadow[^`]+)```", section("A new bundle in the shadow")
    )
    ((shadow, folder),) = re.findall(r"--shadow (\S+)=/srv/bundles/(\S+)", command)
    bundle_in(tmp_path / "current")
    bundle_in(tmp_path / folder, seed=1)
    variables = {
        "CHESTXRAY_BUNDLE": f"pneumonia={tmp_path}/current",
        "CHESTXRAY_SHADOW": f"{shadow}={tmp_path}/{folder}",
        "CHESTXRAY_SHADOW_SHARE": "1",
    }
    with service_process(tmp_path, **variables) as service, asking(service) as http:
        http.post("/predict", files={"file": radiograph_png()}).raise_for_status()
        counted = f'chestxray_shadow_probability_difference_count{{shadow="{shadow}"}} 1.0'
        wait_for(lambda: counted in http.get("/metrics").text)


def test_the_panels_to_look_at_are_those_of_the_dashboards_row() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    titles = [panel["title"] for panel in dashboard["panels"]]
    row = titles[titles.index("Shadow") + 1 : titles.index("Bundle")]
    named = re.findall(r"^\| \*([^*]+)\* \|", section("A new bundle in the shadow"), re.MULTILINE)
    assert sorted(named) == sorted(title.removesuffix(", $shadow") for title in row)


# --- Replacing a bundle ---------------------------------------------------------------------------


def answered_by(service: Service) -> str:
    """The ``bundle_sha256`` of an answer, which is that of the metadata and of the metrics too."""
    with asking(service) as http:
        answer = http.post("/predict", files={"file": radiograph_png()}).raise_for_status()
        sha256: str = answer.json()["model"]["bundle_sha256"]
        assert http.get("/metadata").json()["bundle_sha256"] == sha256
        assert f'bundle_sha256="{sha256}"' in "".join(at_work(http))
    return sha256


def at_work(http: httpx.Client) -> list[str]:
    """The labels of the bundles that are at work, as the metrics tell them."""
    return re.findall(r"chestxray_bundle_info{(.*)} 1\.0", http.get("/metrics").text)


def sha256_of(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_commands_of_the_page_replace_a_bundle_or_leave_the_old_one(
    tmp_path: Path, workers: int
) -> None:
    (commands,) = re.findall(r"```bash.*\n(cp -r[^`]+)```", section("Replacing a bundle"))
    served, made = tmp_path / "srv", tmp_path / "made"
    bundle_in(served / "2026-11")
    bundle_in(made / "2026-12", seed=1)
    damage(bundle_in(made / "2027-01", seed=2))
    (served / "current").symlink_to("2026-11")
    variables = {
        "CHESTXRAY_BUNDLE": f"pneumonia={served}/current",
        "CHESTXRAY_WORKERS": str(workers),
    }
    with service_process(tmp_path, **variables) as service, asking(service) as http:

        def replace_by(version: str) -> None:
            there = commands.replace("/srv/bundles", str(served)).replace("2026-12", version)
            environment = {"PID": str(service.pid), "PATH": "/usr/bin:/bin"}
            subprocess.run(["bash", "-ec", there], cwd=made, env=environment, check=True)  # noqa: S607

        def counted(outcome: str) -> bool:
            line = f'chestxray_bundle_reloads_total{{outcome="{outcome}"}} {workers}.0'
            return line in http.get("/metrics").text

        wait_for(lambda: http.get("/readyz").status_code == 200)
        assert answered_by(service) == sha256_of(served / "2026-11")
        replace_by("2026-12")
        wait_for(lambda: counted("replaced"))
        assert answered_by(service) == sha256_of(served / "2026-12")
        assert len(at_work(http)) == 1
        replace_by("2027-01")
        wait_for(lambda: counted("failed"))
        assert answered_by(service) == sha256_of(served / "2026-12")
    log = service.log.read_text(encoding="utf-8")
    for what in re.findall(
        r"`([^`…]+)…[^`]*`, (?:once|with the reason)", section("Replacing a bundle")
    ):
        assert what in log


def damage(bundle: Path) -> None:
    model = bundle / "model.onnx"
    (damaged := bytearray(model.read_bytes()))[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)


def test_answers_tell_the_bundle_before_the_upgrade_after_it_and_rolled_back(
    tmp_path: Path,
) -> None:
    identities, seen = [], []
    for seed, name in enumerate(["2026-11", "2026-12"]):
        (bundle := tmp_path / name).mkdir()
        write_tiny_bundle(bundle, seed=seed)
        identities.append(sha256_of(bundle))
    for run, name in enumerate(["2026-11", "2026-12", "2026-11"]):
        (folder := tmp_path / str(run)).mkdir()
        with service_process(folder, bundle=tmp_path / name) as service:
            seen.append(answered_by(service))
    assert seen == [*identities, identities[0]]
    assert identities[0] != identities[1]


def test_the_panel_to_look_at_shows_the_bundles_of_each_instance() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = {of["title"]: of.get("targets", []) for of in dashboard["panels"]}
    (named,) = re.findall(r"panel \*([^*]+)\* shows", section("Replacing a bundle"))
    (query,) = queries[named]
    assert "chestxray_bundle_info" in query["expr"]


def test_a_bundle_of_which_a_byte_differs_does_not_serve(tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLED, tmp_path / "bundle")
    damage(bundle)
    with (
        pytest.raises(AssertionError, match="the program has ended"),
        service_process(tmp_path, bundle=bundle),
    ):
        pass
    (line,) = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert "not the one that its manifest names" in line


# --- Backup --------------------------------------------------------------------------------------


def test_every_volume_of_compose_is_in_the_table_of_what_to_keep() -> None:
    kept = section("Backup")
    for name in ("compose.yaml", "compose.pacs.yaml"):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        volumes = re.findall(r"^volumes:\n((?:  \w+:\n)+)", text, flags=re.MULTILINE)
        for volume in re.findall(r"\w+", volumes[0]):
            assert f"volume `{volume}`" in kept
