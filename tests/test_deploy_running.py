"""What deploy/ configures, run together without a container engine: service, proxy, Prometheus.

The files are compose.yaml's, with ports of loopback for the names of its networks. Grafana is not
among Debian's packages: what nginx would pass on to it goes to Prometheus here.
"""

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from chestxray.inference import BUNDLED
from factories.deployment import (
    DEPLOY,
    Prometheus,
    Proxy,
    Service,
    needs_programs,
    nginx,
    prometheus,
    service_process,
    wait_for,
    write_prometheus_files,
)
from factories.images import GREY, raw_png
from factories.requests import radiograph_png

REPOSITORY = Path(__file__).parents[1]
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
COMPOSE: dict[str, dict[str, Any]] = yaml.safe_load(
    (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
)["services"]
SETTINGS: dict[str, str] = {
    name: value
    for name, value in COMPOSE["chestxray"]["environment"].items()
    if name != "CHESTXRAY_API_KEYS"
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_process(tmp_path_factory.mktemp("service"), **SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def monitoring(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), service, service.key) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(
    service: Service, monitoring: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    (others := (folder := tmp_path_factory.mktemp("nginx")) / "chestxray.d").mkdir()
    location = (DEPLOY / "nginx-grafana.conf").read_text(encoding="utf-8")
    assert "http://grafana:3000" in location
    location = location.replace("grafana:3000", f"127.0.0.1:{monitoring.port}")
    users = "/etc/nginx/grafana-users"
    assert users in location
    location = location.replace(users, str(folder / "grafana-users"))
    (folder / "grafana-users").write_text("reader:{PLAIN}secret\n", encoding="utf-8")
    (others / "grafana.conf").write_text(location, encoding="utf-8")
    with nginx(folder, service.port) as proxy:
        yield proxy


@pytest.fixture
def https(proxy: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, verify=proxy.trusted, timeout=60) as client:
        yield client


def health_check(name: str, port: int, instead_of: str) -> int:
    """The exit code of a service's health check, asked at another port."""
    kind, *command = COMPOSE[name]["healthcheck"]["test"]
    assert kind == "CMD"
    needs_programs(command[0])
    there = [part.replace(instead_of, f"127.0.0.1:{port}") for part in command]
    assert there != command
    return subprocess.run(there, capture_output=True, check=False, timeout=30).returncode


# --- the way in -----------------------------------------------------------------------------------


def test_a_radiograph_is_answered_through_the_proxy_to_who_has_a_key(
    https: httpx.Client, service: Service
) -> None:
    files = {"file": radiograph_png()}
    assert https.post("/predict", files=files).status_code == 401
    answer = https.post("/predict", files=files, headers={"X-API-Key": service.key})
    assert answer.status_code == 200
    assert answer.json()["label"] in {"NORMAL", "PNEUMONIA"}


def test_the_metrics_are_not_given_to_the_outside_even_with_a_key(
    https: httpx.Client, service: Service
) -> None:
    assert https.get("/metrics", headers={"X-API-Key": service.key}).status_code == 404


def test_grafana_is_asked_only_with_the_proxys_password(https: httpx.Client) -> None:
    refused = https.get("/grafana/-/ready")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
        401,
        'Basic realm="Grafana"',
    )
    assert https.get("/grafana/-/ready", auth=("reader", "another")).status_code == 401


def test_grafana_is_asked_without_the_prefix_that_it_has_outside(https: httpx.Client) -> None:
    https.auth = ("reader", "secret")
    assert https.get("/grafana/-/ready", params={"a": "b"}).status_code == 200
    led_on = https.get("/grafana")
    assert led_on.status_code == 301
    assert led_on.headers["Location"].endswith("/grafana/")
    assert https.get("/-/ready").status_code == 404


def test_the_proxys_health_is_that_it_speaks_tls(proxy: Proxy, service: Service) -> None:
    assert health_check("proxy", proxy.https_port, "127.0.0.1") == 0
    assert health_check("proxy", proxy.http_port, "127.0.0.1") != 0


# --- monitoring -----------------------------------------------------------------------------------


def test_prometheus_reads_the_service_with_its_key(
    monitoring: Prometheus, service: Service
) -> None:
    headers = {"X-API-Key": service.key}
    url = f"http://127.0.0.1:{service.port}/predict"
    answer = httpx.post(url, files={"file": radiograph_png()}, headers=headers, timeout=60)
    sha256 = answer.json()["model"]["bundle_sha256"]
    wait_for(lambda: monitoring.value('up{job="chestxray"}') == 1)
    wait_for(lambda: monitoring.value(f'chestxray_bundle_info{{bundle_sha256="{sha256}"}}') == 1)
    wait_for(lambda: monitoring.value('chestxray_requests_total{route="/predict",status="200"}'))


def test_prometheus_watches_all_alerts_and_none_fires(monitoring: Prometheus) -> None:
    wanted = re.findall(r"alert: (\w+)", (DEPLOY / "prometheus-rules.yaml").read_text("utf-8"))

    def rules() -> list[dict[str, Any]]:
        (group,) = monitoring.ask("rules")["groups"]
        found: list[dict[str, Any]] = group["rules"]
        return found

    wait_for(lambda: {rule["health"] for rule in rules()} == {"ok"})
    assert [rule["name"] for rule in rules()] == wanted
    assert {rule["state"] for rule in rules()} == {"inactive"}


def test_with_another_key_prometheus_says_that_it_cannot_read(
    service: Service, tmp_path: Path
) -> None:
    with prometheus(tmp_path, service, "another") as monitoring:
        wait_for(lambda: monitoring.value('up{job="chestxray"}') == 0)
        targets = monitoring.ask("targets")["activeTargets"]
        (target,) = [of for of in targets if of["labels"]["job"] == "chestxray"]
        assert "401" in target["lastError"]
        wait_for(lambda: monitoring.value('ALERTS{alertname="ChestXrayDown"}') == 1)


def test_prometheuss_health_is_that_it_is_ready(monitoring: Prometheus) -> None:
    assert health_check("prometheus", monitoring.port, "127.0.0.1:9090") == 0
    assert health_check("prometheus", 1, "127.0.0.1:9090") != 0


def checked(file: Path) -> str:
    """What promtool has against a configuration; empty if nothing."""
    needs_programs("promtool")
    command = ("promtool", "check", "config", str(file))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def test_promtool_accepts_the_configuration_as_it_is(tmp_path: Path) -> None:
    assert not checked(write_prometheus_files(tmp_path, "key", {}))
    targets = {secret["target"] for secret in COMPOSE["prometheus"]["secrets"]}
    assert targets == {"/etc/prometheus/metrics-key"}  # beside the configuration that names it


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("rule_files: [prometheus-", "rule_files: [other-", "does not point to an existing file"),
        ("credentials_file: metrics-key", "credentials_file: other-key", "other-key"),
        ("static_configs", "static_confgis", "static_confgis"),
        ("scrape_interval: 15s", "scrape_interval: 15", "not a valid duration"),
    ],
)
def test_promtool_refuses(there: str, here: str, said: str, tmp_path: Path) -> None:
    assert said in checked(write_prometheus_files(tmp_path, "key", {there: here}))


def test_promtool_accepts_what_the_page_says_for_kubernetes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", OPERATIONS, flags=re.DOTALL)
    (tmp_path / "metrics-key").write_text("key", encoding="utf-8")
    text = text.replace("/etc/prometheus/", f"{tmp_path}/")
    # Debian's promtool is built without Kubernetes: this key is held against its documentation.
    pods = "kubernetes_sd_configs: [{role: pod, namespaces: {names: [chestxray]}}]"
    assert pods in text
    text = text.replace(pods, 'static_configs: [{targets: ["a:8000"]}]')
    (file := tmp_path / "prometheus.yaml").write_text(text, encoding="utf-8")
    assert not checked(file)
    (job,) = yaml.safe_load(text)["scrape_configs"]
    ours, _ = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    assert job["job_name"] == ours["job_name"]


# --- what it takes --------------------------------------------------------------------------------


def test_the_largest_pictures_on_every_thread_at_once_stay_within_the_memory_allowed(
    tmp_path: Path,
) -> None:
    """Twice as many as there are threads, so that others wait in memory meanwhile."""
    side_px = 6320  # 39.9 megapixels; 61 MB, which noise makes it
    noise = np.random.default_rng(0).integers(0, 1024, (side_px, side_px), dtype=np.uint16)
    picture = raw_png(noise + 16_384, GREY, 16)
    threads = int(SETTINGS["CHESTXRAY_THREADS"])
    statuses: list[int] = []
    with service_process(tmp_path, bundle=BUNDLED, **SETTINGS) as service:

        def ask() -> None:
            answer = httpx.post(
                f"http://127.0.0.1:{service.port}/predict",
                params={"input_check": "warn", "heatmap": "true"},
                files={"file": picture},
                headers={"X-API-Key": service.key},
                timeout=120,
            )
            statuses.append(answer.status_code)

        askers = [threading.Thread(target=ask) for _ in range(2 * threads)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        status = Path(f"/proc/{service.pid}/status").read_text(encoding="utf-8")
    assert statuses.count(200) >= threads
    assert {*statuses} <= {200, 429}  # the bodies may be too many together
    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    limit_mib = float(COMPOSE["chestxray"]["mem_limit"].removesuffix("m"))
    assert 600 < int(peak_kib) / 1024 < limit_mib
    (tasks,) = re.findall(r"Threads:\s+(\d+)", status)
    assert int(tasks) < COMPOSE["chestxray"]["pids_limit"]
