"""deploy/kubernetes.yaml: valid, restricted, and in agreement with image, settings and server.

What a cluster would do with it is not seen here.
"""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chestxray import __version__
from chestxray.service import server
from chestxray.service.app import create_app
from chestxray.service.settings import PREFIX, Settings
from factories.deployment import DEPLOY
from factories.servers import served

REPOSITORY = Path(__file__).parents[1]
OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
RECIPE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
"""The oldest that the file names, and the newest whose schemas there are."""

Object = dict[str, Any]


def objects() -> dict[str, Object]:
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    return {of["kind"]: of for of in yaml.safe_load_all(text)}


@pytest.fixture
def pod() -> Object:
    found: Object = objects()["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.fixture
def container(pod: Object) -> Object:
    (found,) = pod["containers"]
    return dict(found)


# --- whether a cluster would take it --------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", objects())
def test_kubernetes_accepts(kind: str, version: str) -> None:
    kubernetes_validate.validate(objects()[kind], version, strict=True)


def in_pod(key: str, value: object) -> Callable[[Object], None]:
    def change(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"][key] = value

    return change


def in_container(key: str, value: object) -> Callable[[Object], None]:
    def change(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0][key] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        in_pod("enableServicelinks", False),
        in_pod("terminationGracePeriodSeconds", "40s"),
        in_container("readynessProbe", {}),
        in_container("env", [{"name": "CHESTXRAY_THREADS", "value": 2}]),
        in_container("ports", [{"name": "http"}]),
    ],
)
def test_kubernetes_refuses(change: Callable[[Object], None]) -> None:
    change(deployment := objects()["Deployment"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def unrestricted(pod: Object) -> set[str]:
    """What the restricted Pod Security Standard, and a root that is read, would have otherwise.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/, "Restricted".
    """
    wrong = {key for key in ("hostNetwork", "hostPID", "hostIPC", "volumes") if pod.get(key)}
    of_pod = pod["securityContext"]
    if of_pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.add("seccompProfile")
    if not of_pod.get("runAsNonRoot") or not of_pod.get("runAsUser"):
        wrong.add("runAsNonRoot")
    for container in pod["containers"] + pod.get("initContainers", []):
        of = container["securityContext"]
        wrong |= {key for key in ("privileged", "runAsUser", "procMount", "seLinux") if of.get(key)}
        if of.get("allowPrivilegeEscalation") is not False:
            wrong.add("allowPrivilegeEscalation")
        if of.get("capabilities") != {"drop": ["ALL"]}:
            wrong.add("capabilities")
        if not of.get("readOnlyRootFilesystem"):
            wrong.add("readOnlyRootFilesystem")
        wrong |= {"hostPort" for port in container["ports"] if "hostPort" in port}
    if pod.get("automountServiceAccountToken") is not False:
        wrong.add("automountServiceAccountToken")
    return wrong


def test_a_pod_may_nothing_that_it_need_not(pod: Object) -> None:
    assert unrestricted(pod) == set()
    labels = objects()["Namespace"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(
    "key", ["allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"]
)
def test_a_pod_that_may_more_is_noticed(key: str, pod: Object) -> None:
    del (wrong := copy.deepcopy(pod))["containers"][0]["securityContext"][key]
    assert unrestricted(wrong) == {key}


# --- whether its parts fit each other -------------------------------------------------------------


def test_everything_speaks_of_the_same_pods() -> None:
    found = objects()
    (name,) = {of["metadata"]["name"] for of in found.values()}
    namespaces = {of["metadata"].get("namespace") for k, of in found.items() if k != "Namespace"}
    assert namespaces == {found["Namespace"]["metadata"]["name"]}
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}


def test_the_autoscaler_alone_says_how_many_there_are(container: Object) -> None:
    found = objects()
    assert "replicas" not in found["Deployment"]["spec"]
    scaling = found["HorizontalPodAutoscaler"]["spec"]
    assert 2 <= scaling["minReplicas"] < scaling["maxReplicas"]
    assert "cpu" in container["resources"]["requests"]  # its share is what is measured
    rolling = found["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


def test_every_way_in_leads_to_the_port_of_the_service(container: Object) -> None:
    found = objects()
    (port,) = container["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    assert f"EXPOSE {port['containerPort']}\n" in RECIPE
    assert [of["targetPort"] for of in found["Service"]["spec"]["ports"]] == [port["name"]]
    (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port["name"]}]
    assert all(container[p]["httpGet"]["port"] == port["name"] for p in container if "Probe" in p)
    assert f"regex: {port['name']}," in OPERATIONS  # Prometheus looks for its name


def test_it_asks_nobody() -> None:
    policy = objects()["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy


# --- whether it fits the service ------------------------------------------------------------------


def test_its_image_is_of_this_version_and_runs_as_that_user(pod: Object, container: Object) -> None:
    assert container["image"] == f"chestxray:{__version__}"
    (user,) = {*re.findall(r"^USER (\d+:\d+)$", RECIPE, flags=re.MULTILINE)}
    of = pod["securityContext"]
    assert user == f"{of['runAsUser']}:{of['runAsGroup']}"


def test_its_settings_exist_and_demand_a_key_that_is_in_no_file(container: Object) -> None:
    given = {of["name"]: of for of in container["env"]}
    assert given.keys() <= {PREFIX + name.upper() for name in Settings.model_fields}
    assert given["CHESTXRAY_REQUIRE_API_KEY"]["value"] == "true"
    reference = given["CHESTXRAY_API_KEYS"]["valueFrom"]["secretKeyRef"]
    assert "value" not in given["CHESTXRAY_API_KEYS"]
    command = f"create secret generic {reference['name']}"
    assert command in OPERATIONS
    assert f"--from-literal={reference['key']}=" in OPERATIONS
    assert "Secret" not in objects()


def test_what_kubernetes_would_set_for_the_service_would_stop_its_start(pod: Object) -> None:
    assert pod["enableServiceLinks"] is False
    name = objects()["Service"]["metadata"]["name"].upper()
    links = {f"{name}_SERVICE_HOST": "10.0.0.1", f"{name}_PORT": "tcp://10.0.0.1:8000"}
    for variable, value in links.items():
        done = subprocess.run(
            [sys.executable, "-m", "chestxray", "serve", "--host", "127.0.0.1"],
            env=os.environ | {variable: value},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert variable in done.stderr


def test_each_probe_asks_what_is_for_it(container: Object) -> None:
    asked = {p: of["httpGet"]["path"] for p, of in container.items() if "Probe" in p}
    assert asked == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }
    with served(create_app(Settings())) as http:
        assert {http.get(path).status_code for path in asked.values()} == {200}


def test_the_end_has_time_for_what_is_in_flight(pod: Object, container: Object) -> None:
    waits_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > waits_s + server.DRAIN_TIMEOUT_S + 3
    assert waits_s > server.LINGER_S


def test_what_it_asks_for_is_what_was_measured(container: Object) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    of_compose = compose["services"]["chestxray"]
    given = {of["name"]: of.get("value") for of in container["env"]}
    threads = given["CHESTXRAY_THREADS"]
    limits, requests = (container["resources"][key] for key in ("limits", "requests"))
    assert requests["cpu"] == threads == of_compose["environment"]["CHESTXRAY_THREADS"]
    assert limits["memory"] == of_compose["mem_limit"].replace("m", "Mi")
    assert f"allow {int(of_compose['mem_limit'][:-1]):,} MiB" in OPERATIONS
    (usual_mb,) = re.findall(r"Ordinary\s+load leaves (\d+) MB", OPERATIONS)
    assert int(requests["memory"].removesuffix("Mi")) * 1.048576 > int(usual_mb)
