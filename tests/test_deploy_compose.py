"""deploy/compose.yaml, what it includes and what it mounts: valid, in agreement, and closed.

What Docker would do with them is not seen here; tests/test_deploy_running.py runs their programs.
"""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from chestxray.assessment.registry import named
from chestxray.pacs.config import NodeConfig, read_config
from chestxray.service import server
from chestxray.service.settings import PREFIX, Settings, load_settings
from factories.deployment import DEPLOY, make_certificate, needs_programs
from factories.dicom_files import dicom
from factories.orthanc import Orthanc, orthanc, source_of
from factories.pacs import OVERLAY, REPORT, NodeProcess, free_port
from factories.servers import wait_until

REPOSITORY = Path(__file__).parents[1]
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
RECIPE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
FILES = ["compose.yaml", "compose.pacs.yaml"]
OURS = ["chestxray", "node"]
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")
"""A variable without which Compose does not start anything."""

Said = dict[str, Any]


def read(name: str) -> Said:
    found: Said = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def deployment() -> Said:
    """compose.yaml with what it includes."""
    whole = read("compose.yaml")
    assert whole["include"] == FILES[1:]
    for section, found in read(FILES[1]).items():
        if section == "name":
            assert found == whole[section]  # or tools disagree about which of them counts
        else:
            assert not whole.setdefault(section, {}).keys() & found.keys()
            whole[section] |= found
    return whole


@pytest.fixture(scope="module")
def services(deployment: Said) -> dict[str, Said]:
    found: dict[str, Said] = deployment["services"]
    return found


@pytest.fixture(scope="module")
def archive() -> Said:
    """What Orthanc is told."""
    found: Said = json.loads((DEPLOY / "orthanc.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def config() -> NodeConfig:
    return read_config(DEPLOY / "pacs.toml")


def mounts(service: Said) -> dict[str, str]:
    """What is mounted where: container's path to ours, or a volume's name."""
    found = {}
    for of in service.get("volumes", []):
        if isinstance(of, str):
            source, target, *_ = of.split(":")
            found[target] = source
        else:
            found[of["target"]] = of["source"]
    return found


def published(service: Said) -> dict[int, str]:
    """The container's ports, and at which address of this machine they are; "" is any."""
    ports = [of.rpartition(":") for of in service.get("ports", [])]
    return {int(inside): of.rpartition(":")[0] for of, _, inside in ports}


def size_mb(limit: str) -> float:
    """A limit of memory, in millions of bytes."""
    return float(limit[:-1]) * {"m": 2**20, "g": 2**30}[limit[-1]] / 1e6


def together(services: dict[str, Said], one: str, other: str) -> set[str]:
    return {*services[one]["networks"]} & {*services[other]["networks"]}


# --- whether Compose would read it ----------------------------------------------------------------


def refusal(file: Path) -> str:
    """What the Compose specification's schema has against a file; empty if nothing."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", "--output-format", "JSON", str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout if done.returncode else ""


@pytest.mark.parametrize("name", FILES)
def test_the_specification_of_compose_files_accepts(name: str) -> None:
    assert not refusal(DEPLOY / name)


def set_in(service: str, key: str, value: object) -> Callable[[Said], None]:
    def change(said: Said) -> None:
        said["services"][service][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_in("proxy", "read_olny", True), "read_olny"),
        (set_in("chestxray", "pids_limit", [1]), "pids_limit"),
        (set_in("prometheus", "healthcheck", {"test": 1}), "healthcheck"),
        (set_in("grafana", "depends_on", {"proxy": {"condition": "ready"}}), "depends_on"),
    ],
)
def test_the_specification_refuses(
    change: Callable[[Said], None], named: str, tmp_path: Path
) -> None:
    change(said := read("compose.yaml"))
    (file := tmp_path / "compose.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    assert named in refusal(file)


def undefined(deployment: Said) -> set[str]:
    """Networks, volumes, secrets and services that are used and do not exist."""
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set()}
    used["services"] = set()
    for of in deployment["services"].values():
        used["networks"] |= {*of.get("networks", [])}
        used["volumes"] |= {source for source in mounts(of).values() if source[0] != "."}
        used["secrets"] |= {secret["source"] for secret in of.get("secrets", [])}
        used["services"] |= {*of.get("depends_on", {})}
    return {
        f"{kind}.{name}" for kind, names in used.items() for name in names - deployment[kind].keys()
    }


def test_what_is_used_is_defined(deployment: Said) -> None:
    assert not undefined(deployment)
    wrong = copy.deepcopy(deployment)
    wrong["services"]["proxy"]["networks"] = ["fornt"]
    del wrong["volumes"]["queue"]
    assert undefined(wrong) == {"networks.fornt", "volumes.queue"}


# --- what is open, and to whom --------------------------------------------------------------------


def test_only_tls_is_published_and_what_is_for_trying_on_this_machine_alone(
    services: dict[str, Said],
) -> None:
    open_to_all = {
        (name, port)
        for name, of in services.items()
        for port, at in published(of).items()
        if not at
    }
    assert open_to_all == {("proxy", 443)}
    elsewhere = {at for of in services.values() for at in published(of).values()} - {""}
    assert elsewhere == {"127.0.0.1"}


def test_each_network_leads_only_to_whom_it_must(
    deployment: Said, services: dict[str, Said]
) -> None:
    internal = {name for name, of in deployment["networks"].items() if of and of.get("internal")}
    for name in ("chestxray", "prometheus", "prober", "grafana"):
        assert {*services[name]["networks"]} <= internal  # no way in from outside, and none out
        assert "ports" not in services[name]
    assert together(services, "proxy", "chestxray") == {"front"}
    assert together(services, "prometheus", "chestxray") == {"monitoring"}
    assert together(services, "prometheus", "grafana") == {"monitoring"}
    assert not together(services, "proxy", "prometheus")
    assert together(services, "node", "orthanc") == {"dicom"}
    for name in {*services} - {"node", "orthanc"}:
        assert not together(services, name, "node")


def test_no_secret_is_in_the_files_and_without_them_nothing_starts(
    services: dict[str, Said],
) -> None:
    environment = services["chestxray"]["environment"] | services["grafana"]["environment"]
    secrets = {name: value for name, value in environment.items() if re.search("KEYS|PASS", name)}
    assert len(secrets) == 2
    assert all(REQUIRED.fullmatch(value) for value in secrets.values())
    required = REQUIRED.findall((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    (said,) = re.findall(r"cat > \.env <<'END'\n(.*?)^END$", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert sorted(required) == sorted(re.findall(r"^(\w+)=", said, re.MULTILINE))
    assert not REQUIRED.findall((DEPLOY / "compose.pacs.yaml").read_text(encoding="utf-8"))


def test_what_a_site_adds_is_never_committed(deployment: Said, services: dict[str, Said]) -> None:
    ours = {path.relative_to(DEPLOY).as_posix() for path in DEPLOY.rglob("*")}
    sources = {s for of in services.values() for s in mounts(of).values() if s[0] == "."}
    sources |= {of["file"] for of in deployment["secrets"].values()}
    sites = {source.removeprefix("./") for source in sources} - ours
    ignored = (DEPLOY / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert sites <= {"tls", "metrics-key", "grafana-users"}
    assert {f"/{name}" for name in ("tls/", "metrics-key", "grafana-users", ".env")} <= {*ignored}
    made = ("tls/chestxray.key", "metrics-key", "grafana-users", ".env")
    assert all(name in OPERATIONS for name in made)


def test_no_image_names_a_registry_and_all_but_ours_say_which_version(
    services: dict[str, Said],
) -> None:
    images = {name: of["image"] for name, of in services.items()}
    images["base"] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", RECIPE, flags=re.MULTILINE)[0]
    for name, said in images.items():
        image = re.sub(r"\$\{\w+_IMAGE:-(.*)\}", r"\1", said)
        assert (image != said) == (name not in {*OURS, "base"})  # by a digest, if a site likes
        assert "." not in image.partition("/")[0] or "/" not in image
        pinned = re.search(r":v?\d+\.\d+(\.\d+|-slim)$", image)
        assert bool(pinned) == (name not in OURS), image


def test_what_the_image_is_made_of_is_not_ignored() -> None:
    copied = {
        part
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", RECIPE, flags=re.MULTILINE)
        for part in line.split()
    }
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line[1:] for line in lines if line.startswith("!")}
    assert all((REPOSITORY / part).exists() for part in copied)


# --- what each may --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OURS, "proxy", "prometheus", "prober", "grafana"])
def test_each_may_nothing_that_it_need_not(name: str, services: dict[str, Said]) -> None:
    of = services[name]
    assert of["read_only"]
    assert of["cap_drop"] == ["ALL"]
    assert of["security_opt"] == ["no-new-privileges:true"]
    assert not of.keys() & {"privileged", "cap_add", "devices", "user", "network_mode", "pid"}
    assert 0 < of["pids_limit"] <= 256
    assert size_mb(of["mem_limit"]) <= 3000
    assert of["restart"] == "unless-stopped"
    assert of["logging"] == {"driver": "local"}  # which rotates


@pytest.mark.parametrize(("name", "target"), [("chestxray", "serve"), ("node", "pacs")])
def test_ours_are_built_for_a_user_without_privileges(
    name: str, target: str, services: dict[str, Said]
) -> None:
    assert services[name]["build"]["target"] == target
    _, _, stage = RECIPE.partition(f"\nFROM base AS {target}\n")
    (_, _, base), stage = RECIPE.partition("AS base\n"), stage.partition("\nFROM ")[0]
    assert 'ENTRYPOINT ["chestxray"]' in base
    users = re.findall(r"^USER (\S+)$", base.partition("\nFROM ")[0] + stage, re.MULTILINE)
    assert users[-1] == "10001:10001"


def test_the_memory_of_the_service_holds_the_most_that_its_threads_take(
    services: dict[str, Said],
) -> None:
    of = services["chestxray"]
    threads = int(of["environment"]["CHESTXRAY_THREADS"])
    (each,) = re.findall(r"the limit by (\d+) MB\s+for each", OPERATIONS)
    (idle,) = re.findall(r"A server idle has (\d+) MB", OPERATIONS)
    bodies_mb = Settings.model_fields["max_buffered_bytes"].default / 1e6
    assert size_mb(of["mem_limit"]) > int(idle) + bodies_mb + threads * int(each)


def test_the_memory_of_the_node_holds_the_most_that_its_processes_took(
    services: dict[str, Said], config: NodeConfig
) -> None:
    page = " ".join((REPOSITORY / "docs" / "pacs.md").read_text(encoding="utf-8").split())
    said = re.search(
        r"([\d,]+) MB for the main process and ([\d,]+) MB for a judge; .* the sender (\d+) MB",
        page,
    )
    assert said
    main, judge, sender = (int(figure.replace(",", "")) for figure in said.groups())
    assert config.node.judges
    most_mb = main + config.node.judges * judge + sender
    assert size_mb(services["node"]["mem_limit"]) > most_mb


def test_each_gets_the_time_that_an_orderly_end_takes(services: dict[str, Said]) -> None:
    assert services["chestxray"]["stop_grace_period"] == "30s"
    assert server.DRAIN_TIMEOUT_S + server.LINGER_S < 30
    assert services["node"]["stop_grace_period"] == "30s"


# --- the service ----------------------------------------------------------------------------------


def image_environment() -> dict[str, str]:
    """What the target ``serve`` of the Dockerfile sets."""
    _, _, stage = RECIPE.partition("\nFROM base AS serve\n")
    lines = re.findall(r"^ENV (.+)$", stage, flags=re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def test_the_service_demands_a_key_though_its_image_does_not(
    services: dict[str, Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_image, of_compose = image_environment(), services["chestxray"]["environment"]
    assert of_image.keys() | of_compose.keys() <= {
        PREFIX + name.upper() for name in Settings.model_fields
    }
    assert of_compose["CHESTXRAY_API_KEYS"].startswith("${CHESTXRAY_API_KEYS:?")
    given = of_image | of_compose | {"CHESTXRAY_API_KEYS": f"a:{'0' * 64}"}
    for name, value in of_image.items():
        monkeypatch.setenv(name, value)
    assert not load_settings().demands_key
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.demands_key
    assert not settings.on_loopback
    assert settings.threads == 2


def test_its_health_is_the_images_and_whether_it_is_ready(services: dict[str, Said]) -> None:
    assert "healthcheck" not in services["chestxray"]
    (check,) = re.findall(r"^HEALTHCHECK (?:.*\\\n)*.*$", RECIPE, flags=re.MULTILINE)
    assert "/readyz" in check
    assert services["proxy"]["depends_on"]["chestxray"]["condition"] == "service_healthy"


def test_the_proxy_and_prometheus_call_the_service_by_its_name_and_port(
    services: dict[str, Said],
) -> None:
    port = Settings.model_fields["port"].default
    assert f"EXPOSE {port}\n" in RECIPE
    (upstream,) = re.findall(
        r"^ +server (\S+);", (DEPLOY / "nginx.conf").read_text(encoding="utf-8"), re.MULTILINE
    )
    job, certificate = read("prometheus.yaml")["scrape_configs"]
    assert upstream == f"chestxray:{port}"
    assert job["static_configs"] == [{"targets": [upstream]}]
    assert "chestxray" in services
    (module,) = certificate["params"]["module"]
    assert module in read("blackbox.yaml")["modules"]
    assert certificate["params"]["target"] == ["proxy:443"]
    assert certificate["static_configs"] == [{"targets": ["prober:9115"]}]
    assert together(services, "prober", "proxy") == {"front"}
    assert "monitoring" in together(services, "prober", "prometheus")
    (file,) = mounts(services["prober"])
    assert services["prober"]["command"] == [f"--config.file={file}"]


def test_nothing_with_a_password_that_everyone_knows_starts_unless_a_profile_asks_for_it(
    services: dict[str, Said],
) -> None:
    assert services["orthanc"]["profiles"] == ["demo"]
    assert set(services["node"]["profiles"]) == {"demo", "node"}
    for name in {*services} - {"orthanc", "node"}:
        assert "profiles" not in services[name]


def test_the_example_of_another_bundle_fits_the_deployment(
    services: dict[str, Said], tmp_path: Path
) -> None:
    (text,) = re.findall(r"```yaml\n# compose\.override\.yaml\n(.*?)```", OPERATIONS, re.DOTALL)
    (file := tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
    assert not refusal(file)
    added = yaml.safe_load(text)["services"]
    assert {*added} == {"chestxray"}
    (where,) = mounts(added["chestxray"])
    assert added["chestxray"]["environment"].keys() == {"CHESTXRAY_BUNDLE"}
    (name, folder) = named(added["chestxray"]["environment"]["CHESTXRAY_BUNDLE"])
    assert name
    assert folder.parent == Path(where)
    assert all(of.endswith(":ro") for of in added["chestxray"]["volumes"])
    assert "/compose.override.yaml" in (DEPLOY / ".gitignore").read_text(encoding="utf-8")


# --- the proxy ------------------------------------------------------------------------------------


def nginx_test(
    services: dict[str, Said], root: Path, change: Callable[[str], str] = lambda text: text
) -> subprocess.CompletedProcess[str]:
    """``nginx -t`` with what compose.yaml mounts, each file where it is mounted, below ``root``.

    ``chestxray`` is a name in Docker's networks alone, so it has an address here.
    """
    for target, source in mounts(services["proxy"]).items():
        place = root / target[1:]
        if (DEPLOY / source).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            text = (DEPLOY / source).read_text(encoding="utf-8")
            text = text.replace("/etc/nginx/", f"{root}/etc/nginx/")
            text = text.replace("/var/log/nginx/", f"{root}/")
            place.write_text(change(text.replace("server chestxray:", "server 127.0.0.1:")))
    (root / "nginx.conf").write_text(
        f"pid {root}/pid; events {{}} http {{ include {root}/etc/nginx/conf.d/*.conf; }}"
    )
    command = ("nginx", "-t", "-c", f"{root}/nginx.conf", "-e", f"{root}/error.log")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_nginx_accepts_what_is_mounted_where_it_is_mounted(
    services: dict[str, Said], tmp_path: Path
) -> None:
    needs_programs("nginx", "openssl")
    (certificates := tmp_path / "etc/nginx/tls").mkdir(parents=True)
    assert mounts(services["proxy"])["/etc/nginx/tls"] == "./tls"
    make_certificate(certificates)
    done = nginx_test(services, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "location /grafana/" in (tmp_path / "etc/nginx/chestxray.d/grafana.conf").read_text()


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ("proxy_read_timeout 60s", "proxy_raed_timeout 60s", "unknown directive"),
        ("server 127.0.0.1:8000;", "server chestxray.invalid:8000;", "host not found in upstream"),
        ("chestxray.crt", "chestxray.pem", "cannot load certificate"),
        ("set $grafana http", "set $grafanna http", 'unknown "grafana" variable'),
    ],
)
def test_nginx_refuses(
    there: str, here: str, said: str, services: dict[str, Said], tmp_path: Path
) -> None:
    needs_programs("nginx", "openssl")
    (certificates := tmp_path / "etc/nginx/tls").mkdir(parents=True)
    make_certificate(certificates)
    done = nginx_test(services, tmp_path, lambda text: text.replace(there, here))
    assert done.returncode != 0
    assert said in done.stderr


# --- Grafana --------------------------------------------------------------------------------------


def test_grafana_finds_prometheus_and_the_dashboard(services: dict[str, Said]) -> None:
    of = services["grafana"]
    assert not misprovisioned(services, read("grafana/datasource.yaml"), dashboards())
    assert mounts(of)["/etc/grafana/provisioning/datasources/chestxray.yaml"] == (
        "./grafana/datasource.yaml"
    )
    assert mounts(of)["/etc/grafana/provisioning/dashboards/chestxray.yaml"] == (
        "./grafana/dashboards.yaml"
    )


def dashboards() -> Said:
    return read("grafana/dashboards.yaml")


def misprovisioned(services: dict[str, Said], sources: Said, dashboards: Said) -> list[str]:
    """What would leave Grafana without figures or without the dashboard."""
    wrong = []
    (source,), (provider,) = sources["datasources"], dashboards["providers"]
    host = re.fullmatch(r"http://(\w+):9090", source["url"])  # Prometheus's port
    if host is None or host[1] not in services or not together(services, "grafana", host[1]):
        wrong.append("url")
    if (source["type"], source["access"]) != ("prometheus", "proxy"):
        wrong.append("type")  # the dashboard's variable looks for a data source of this type
    if source["jsonData"]["timeInterval"] != read("prometheus.yaml")["global"]["scrape_interval"]:
        wrong.append("timeInterval")  # $__rate_interval follows it
    shown = {
        target: source
        for target, source in mounts(services["grafana"]).items()
        if Path(target).parent == Path(provider["options"]["path"])
    }
    if [*shown.values()] != ["./grafana-dashboard.json"] or provider["type"] != "file":
        wrong.append("path")
    if {sources["apiVersion"], dashboards["apiVersion"]} != {1}:
        wrong.append("apiVersion")
    return wrong


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "http://prometeus:9090"),
        ("url", "http://proxy-less:9090"),
        ("type", "influxdb"),
        ("path", "/var/lib/grafana/dashboards"),
    ],
)
def test_grafana_would_be_left_without_by(key: str, value: str, services: dict[str, Said]) -> None:
    sources, providers = read("grafana/datasource.yaml"), dashboards()
    if key == "path":
        providers["providers"][0]["options"]["path"] = value
    else:
        sources["datasources"][0][key] = value
    assert misprovisioned(services, sources, providers) == [key]


def test_grafana_is_where_the_proxy_leads_and_lets_in_nobody_without_a_password(
    services: dict[str, Said],
) -> None:
    said = services["grafana"]["environment"]
    assert said["GF_AUTH_ANONYMOUS_ENABLED"] == said["GF_USERS_ALLOW_SIGN_UP"] == "false"
    location = (DEPLOY / "nginx-grafana.conf").read_text(encoding="utf-8")
    assert REQUIRED.sub("NAME", said["GF_SERVER_ROOT_URL"]) == "https://NAME/grafana/"
    assert "location /grafana/ {" in location
    assert "set $grafana http://grafana:3000;" in location
    assert together(services, "proxy", "grafana") == {"front"}
    assert "http://127.0.0.1:3000/api/health" in services["grafana"]["healthcheck"]["test"]


# --- the node and the archive ---------------------------------------------------------------------


def test_the_node_finds_its_configuration_and_a_place_for_its_queue(
    services: dict[str, Said], config: NodeConfig
) -> None:
    node = services["node"]
    assert node["command"][:2] == ["pacs", "run"]
    mounted = mounts(node)
    assert mounted[node["command"][2]] == "./pacs.toml"
    assert node["healthcheck"]["test"][1:] == [
        *("chestxray", "pacs", "status", node["command"][2], "--json")
    ]
    assert mounted[str(config.node.folder.parent)] == "queue"
    assert config.node.port in published(node)


def test_the_archive_finds_its_configuration_and_its_storage(
    services: dict[str, Said], archive: Said
) -> None:
    mounted = mounts(services["orthanc"])
    assert mounted["/etc/orthanc/orthanc.json"] == "./orthanc.json"
    assert mounted[archive["StorageDirectory"]] == "archive"
    assert set(published(services["orthanc"])) == {archive["HttpPort"], archive["DicomPort"]}


def test_node_and_archive_know_each_other(
    services: dict[str, Said], archive: Said, config: NodeConfig
) -> None:
    (destination,) = config.destination
    assert (destination.ae_title, destination.port) == (archive["DicomAet"], archive["DicomPort"])
    assert destination.host in services
    assert archive["DicomAet"] in {peer.ae_title for peer in config.peer}
    (ours,) = archive["DicomModalities"].values()
    assert ours == [config.node.ae_title, "node", config.node.port]
    assert "node" in services


def test_the_walk_through_names_a_file_and_a_service_that_exist(
    services: dict[str, Said],
) -> None:
    page = (REPOSITORY / "docs" / "pacs.md").read_text(encoding="utf-8")
    for file, command in re.findall(r"docker compose -f (\S+) (.*)$", page, re.MULTILINE):
        assert file == "deploy/compose.pacs.yaml"
        words = command.removeprefix("--profile demo ").split()
        assert words[:2] in (["up", "--build"], ["exec", "node"])


def test_orthanc_sends_a_radiograph_to_the_node_and_has_its_answers(
    archive: Said, tmp_path: Path
) -> None:
    """The walk-through of docs/pacs.md, with other ports and folders."""
    port, archive_port = free_port(), free_port()
    text = (DEPLOY / "pacs.toml").read_text(encoding="utf-8")
    for there, here in {
        'host = "0.0.0.0" ': 'host = "127.0.0.1"',
        "port = 11112": f"port = {port}",
        "/var/lib/chestxray": str(tmp_path),
        'host = "orthanc"': 'host = "127.0.0.1"',
        "port = 4242": f"port = {archive_port}",
        # A phantom is answered, and with an overlay, whichever bundle ships.
        'modality = ["CR", "DX"]': 'modality = ["CR", "DX"]\ninput_check = "warn"\n'
        "unvalidated_heatmaps = true",
    }.items():
        assert there in text
        text = text.replace(there, here)
    config = tmp_path / "pacs.toml"
    config.write_text(text, encoding="utf-8")

    ((name, (ae_title, _, _)),) = archive["DicomModalities"].items()
    told = archive | {
        "DicomModalities": {name: [ae_title, "127.0.0.1", port]},
        "RemoteAccessAllowed": False,
    }
    for replaced in ("StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort"):
        del told[replaced]
    ((user, password),) = archive["RegisteredUsers"].items()
    with orthanc(
        tmp_path / "orthanc", dicom_port=archive_port, auth=(user, password), **told
    ) as running:
        node = NodeProcess(config, tmp_path / "log")
        try:
            assert node.port == port
            stored = running.http.post("instances", content=dicom()).raise_for_status().json()
            sent = running.http.post(f"modalities/{name}/store", content=stored["ID"])
            assert sent.raise_for_status().json()["FailedInstancesCount"] == 0
            wait_until(lambda: running.count() == 3)
            assert answers(running) == {REPORT, OVERLAY}
            assert node.end() == 0
        finally:
            if node.process.poll() is None:
                node.kill()


def answers(archive: Orthanc) -> set[str]:
    """SOP classes of what answers the one radiograph, all in its study."""
    (source,) = [of for of in archive.instances() if of["Modality"] == "CR"]
    found = [of for of in archive.instances() if of["Modality"] != "CR"]
    assert {source_of(of) for of in found} == {source["SOPInstanceUID"]}
    assert {of["StudyInstanceUID"] for of in found} == {source["StudyInstanceUID"]}
    return {of["SOPClassUID"] for of in found}
