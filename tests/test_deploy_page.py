"""What docs/operations.md says of sizing, of bundles that change and of backup."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from chestxray.inference import BUNDLED
from factories.bundles import write_tiny_bundle
from factories.deployment import DEPLOY, Service, service_process
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


# --- Upgrade and roll back a bundle ---------------------------------------------------------------


def answered_by(service: Service) -> str:
    """The ``bundle_sha256`` of an answer, which is that of the metadata and of the metrics too."""
    headers = {"X-API-Key": service.key}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{service.port}", headers=headers, timeout=60
    ) as http:
        answer = http.post("/predict", files={"file": radiograph_png()}).raise_for_status()
        sha256: str = answer.json()["model"]["bundle_sha256"]
        assert http.get("/metadata").json()["bundle_sha256"] == sha256
        metrics = http.get("/metrics").text
        told = re.findall(r'chestxray_bundle_info{.*bundle_sha256="(\w+)"', metrics)
        assert told == [sha256]
    return sha256


def test_answers_tell_the_bundle_before_the_upgrade_after_it_and_rolled_back(
    tmp_path: Path,
) -> None:
    identities, seen = [], []
    for seed, name in enumerate(["2026-11", "2026-12"]):
        (bundle := tmp_path / name).mkdir()
        write_tiny_bundle(bundle, seed=seed)
        identities.append(hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest())
    for run, name in enumerate(["2026-11", "2026-12", "2026-11"]):
        (folder := tmp_path / str(run)).mkdir()
        with service_process(folder, bundle=tmp_path / name) as service:
            seen.append(answered_by(service))
    assert seen == [*identities, identities[0]]
    assert identities[0] != identities[1]


def test_the_panel_to_look_at_shows_the_bundle_of_each_instance() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = {of["title"]: of.get("targets", []) for of in dashboard["panels"]}
    (named,) = re.findall(r"panel \*([^*]+)\* shows", section("Upgrade and roll back a bundle"))
    (query,) = queries[named]
    assert "chestxray_bundle_info" in query["expr"]


def test_a_bundle_of_which_a_byte_differs_does_not_serve(tmp_path: Path) -> None:
    bundle = shutil.copytree(BUNDLED, tmp_path / "bundle")
    model = bundle / "model.onnx"
    (damaged := bytearray(model.read_bytes()))[len(damaged) // 2] ^= 1
    model.write_bytes(damaged)
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
