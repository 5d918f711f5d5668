"""What lies in ``deploy/`` for operators speaks of metrics that exist, in PromQL that works."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chestxray.service.metrics import Metrics, Stage

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus-rules.yaml"
DASHBOARD: dict[str, Any] = json.loads(
    (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
VARIABLES: dict[str, dict[str, Any]] = {
    variable["name"]: variable for variable in DASHBOARD["templating"]["list"]
}
ALERTS: list[str] = re.findall(r"alert: (\w+)", RULES.read_text(encoding="utf-8"))

INSTANCE = 'job="chestxray",instance="a:8000"'
PROBED = 'job="certificate",instance="prober:9115"'


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The name of every sample that the service exposes, with the names of its labels."""
    metrics = Metrics()
    for name in get_args(Stage):
        metrics.observe_stage(name, 0.01)
    metrics.request(route="/predict", status=200, key="ward", duration_s=0.02)
    metrics.predicted(
        model="tiny",
        label="NORMAL",
        operating_point="balanced",
        uncertain=True,
        probability=0.4,
        input_check_score=0.9,
    )
    metrics.refused("not_a_chest_radiograph", 0.1)
    metrics.set_bundles([("tiny", "answers", "ab", "1")])
    metrics.shadowed(shadow="new", operating_point="balanced", label="DRY", shadow_label="refused")
    metrics.shadow_differed(shadow="new", difference=-0.1)
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.exposition()[0].decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def dashboard_queries() -> list[str]:
    queries = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    queries += [a["expr"] for a in DASHBOARD["annotations"]["list"] if "expr" in a]
    return queries


def names_and_labels(promql: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric of ours in a query, with the labels that its selector names."""
    for name, selector in re.findall(r"\b(chestxray_\w+)(\{[^}]*\})?", promql):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    return found


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["dashboard", "rules"])
def test_every_metric_and_label_in_a_query_exists(
    source: str, exposed: dict[str, set[str]]
) -> None:
    text = "\n".join(dashboard_queries()) if source == "dashboard" else RULES.read_text("utf-8")
    found = [*names_and_labels(text)]
    assert len(found) > 10
    for name, labels in found:
        assert name in exposed
        assert labels <= exposed[name] | {"instance", "job"}, name


def test_every_metric_and_label_that_a_variable_is_read_from_exists(
    exposed: dict[str, set[str]],
) -> None:
    read = [v["definition"] for v in VARIABLES.values() if v["type"] == "query"]
    assert len(read) == 3
    for definition in read:
        ((name, labels),) = names_and_labels(definition)
        assert name in exposed
        assert labels <= exposed[name]
        (shown,) = re.findall(r", (\w+)\)$", definition)
        assert shown in exposed[name] | {"instance"}


def test_no_query_knows_what_one_bundle_calls_its_finding() -> None:
    text = "\n".join(dashboard_queries()) + RULES.read_text("utf-8")
    named = set(re.findall(r'\b(?:shadow_)?label!?=~?"([^"]*)"', text))
    assert named == {"refused"}


def test_every_label_that_a_query_groups_by_exists(exposed: dict[str, set[str]]) -> None:
    known = {"instance", "job"}.union(*exposed.values())
    text = "\n".join(dashboard_queries()) + RULES.read_text("utf-8")
    groupings = re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", text)
    assert len(groupings) > 10
    for grouping in groupings:
        assert set(grouping.split(", ")) <= known


def test_every_label_in_a_legend_is_one_that_its_query_leaves() -> None:
    for panel in PANELS:
        for target in panel.get("targets", []):
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            kept = {label for labels in grouped for label in labels.split(", ")}
            assert not shown or not grouped or shown <= kept, panel["title"]


def test_every_metric_is_on_the_dashboard(exposed: dict[str, set[str]]) -> None:
    shown = {name for name, _ in names_and_labels("\n".join(dashboard_queries()))}
    suffix = re.compile(r"_(bucket|count|sum)$")
    assert {suffix.sub("", name) for name in exposed} == {suffix.sub("", name) for name in shown}


# --- the dashboard --------------------------------------------------------------------------------


def test_the_dashboard_can_be_imported_anywhere_and_again() -> None:
    assert DASHBOARD["uid"] == "chestxray"
    assert DASHBOARD["schemaVersion"] >= 39
    assert "id" not in DASHBOARD
    assert VARIABLES["datasource"]["type"] == "datasource"
    ours = {"type": "prometheus", "uid": "${datasource}"}
    panels = [panel for panel in PANELS if panel["type"] != "row"]
    for panel in panels:
        assert panel["datasource"] == ours
        assert all(target["datasource"] == ours for target in panel["targets"])
    for variable in VARIABLES.values():
        assert variable["type"] == "datasource" or variable["datasource"] == ours


def test_every_query_follows_the_chosen_instance() -> None:
    for query in dashboard_queries():
        for selector in re.findall(r"\bchestxray_\w+(\{[^}]*\})?", query):
            assert 'instance=~"$instance"' in selector, query


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], str] = {}
    for panel in PANELS:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        ):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Saturation", "Answers", "Drift", "Shadow", "Bundle"]


def filled(query: str) -> str:
    """A query as Grafana asks it, of every instance."""
    query = re.sub(r"\$__(rate_interval|range)", "5m", query)
    return query.replace("$instance", ".*").replace("$model", "tiny").replace("$shadow", "new")


def test_prometheus_reads_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = []
    for number, query in enumerate(dashboard_queries()):
        rules.append({"record": f"panel:{number}", "expr": filled(query)})
    file = tmp_path / "dashboard.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", file)


@pytest.mark.parametrize(
    ("panel", "shares"),
    [
        (
            "Share labelled otherwise than by the default",
            [{"new balanced": 0.25, "new screening": 0.0}],
        ),
        ("Share refused by one alone", [{"new": 0.1}, {"new": 0.05}]),
    ],
)
def test_a_shadow_is_compared_where_both_answer_and_where_one_refuses(
    panel: str, shares: list[dict[str, float]], promtool: str, tmp_path: Path
) -> None:
    an_hour = {
        assessments("DRY", "DRY"): 40,
        assessments("DRY", "WET"): 15,
        assessments("WET", "WET"): 20,
        assessments("WET", "DRY"): 5,
        assessments("DRY", "refused"): 10,
        assessments("refused", "DRY"): 5,
        assessments("refused", "refused"): 5,
        assessments("WET", "WET", "screening"): 80,
        assessments("WET", "refused", "screening"): 10,
        assessments("refused", "WET", "screening"): 5,
        assessments("refused", "refused", "screening"): 5,
    }
    (queries,) = [
        [target["expr"] for target in of["targets"]] for of in PANELS if of["title"] == panel
    ]
    asked = [
        {
            "expr": f"round({filled(query)}, 0.001)",
            "eval_time": "2h",
            "exp_samples": [
                {"labels": labels_of(of), "value": share} for of, share in expected.items()
            ],
        }
        for query, expected in zip(queries, shares, strict=True)
    ]
    inputs = [{"series": name, "values": f"0+{n}x120"} for name, n in an_hour.items()]
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": asked}
    file = tmp_path / "test.yaml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    run(promtool, "test", "rules", file)


def labels_of(legend: str) -> str:
    """The labels of a result, from a legend of a shadow and perhaps an operating point."""
    shadow, *point = legend.split()
    return "{" + ",".join([*(f'operating_point="{p}"' for p in point), f'shadow="{shadow}"']) + "}"


# --- the alerts -----------------------------------------------------------------------------------


def test_prometheus_reads_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", RULES)


def bundle_info(name: str, sha256: str, role: str = "answers", instance: str = INSTANCE) -> str:
    labels = f'name="{name}",role="{role}",bundle_sha256="{sha256}",version="1"'
    return f"chestxray_bundle_info{{{instance},{labels}}}"


def assessments(label: str, shadow_label: str, operating_point: str = "balanced") -> str:
    labels = f'label="{label}",shadow_label="{shadow_label}",operating_point="{operating_point}"'
    return f'chestxray_shadow_assessments_total{{{INSTANCE},shadow="new",{labels}}}'


ALL_WELL = {
    f"up{{{INSTANCE}}}": "1+0x120",
    f"probe_success{{{PROBED}}}": "1+0x120",
    f"probe_ssl_earliest_cert_expiry{{{PROBED}}}": f"{90 * 86400}+0x120",
    f'chestxray_requests_total{{{INSTANCE},route="/predict",status="200",key=""}}': "0+600x120",
    f'chestxray_requests_total{{{INSTANCE},route="/predict",status="429",key=""}}': "0+6x120",
    f'chestxray_requests_total{{{INSTANCE},route="/readyz",status="503",key=""}}': "0+1x120",
    f'chestxray_problems_total{{{INSTANCE},code="internal_error"}}': "0+0x120",
    f'chestxray_problems_total{{{INSTANCE},code="not_a_chest_radiograph"}}': "0+10x120",
    f"chestxray_worker_deaths_total{{{INSTANCE}}}": "0+0x119 1",
    f'chestxray_request_duration_seconds_bucket{{{INSTANCE},route="/predict",le="0.1"}}': (
        "0+600x120"
    ),
    f'chestxray_request_duration_seconds_bucket{{{INSTANCE},route="/predict",le="+Inf"}}': (
        "0+600x120"
    ),
    f'chestxray_resident_memory_bytes{{{INSTANCE},pid="7"}}': "200000000+0x120",
    f'chestxray_resident_memory_bytes{{{INSTANCE},pid="8"}}': "210000000+0x120",
    bundle_info("lungs", "aa"): "1+0x120",
    bundle_info("lungs", "00"): "1+0x60 0+0x60",
    bundle_info("water", "bb"): "1+0x120",
    bundle_info("new", "cc", "shadow"): "1+0x120",
    f'chestxray_bundle_reloads_total{{{INSTANCE},outcome="replaced"}}': "0+0x60 1+0x60",
    f'chestxray_bundle_reloads_total{{{INSTANCE},outcome="failed"}}': "0+0x120",
    f"chestxray_shadow_skipped_total{{{INSTANCE}}}": "0+10x120",
    assessments("NORMAL", "NORMAL"): "0+40x120",
    assessments("PNEUMONIA", "NORMAL"): "0+10x120",
    f"chestxray_input_check_score_count{{{INSTANCE}}}": "0+600x120",
    f'chestxray_probability_count{{{INSTANCE},model="lungs"}}': "0+590x120",
    f'chestxray_probability_sum{{{INSTANCE},model="lungs"}}': "0+236x120",
}
"""Two hours of a busy instance, a sample each minute. It has two models and a shadow, and replaced
one of its bundles."""

TROUBLES = {
    "ChestXrayDown": {f"up{{{INSTANCE}}}": "1+0x60 0+0x60"},
    "ChestXrayServerErrors": {
        f'chestxray_requests_total{{{INSTANCE},route="/predict",status="500",key=""}}': "0+1x120"
    },
    "ChestXrayWorkersDie": {f"chestxray_worker_deaths_total{{{INSTANCE}}}": "0+1x120"},
    "ChestXrayCertificateEnds": {
        f"probe_ssl_earliest_cert_expiry{{{PROBED}}}": f"{20 * 86400}+0x120"
    },
    "ChestXrayCertificateUnseen": {f"probe_success{{{PROBED}}}": "1+0x60 0+0x60"},
    "ChestXrayOverloaded": {
        f'chestxray_requests_total{{{INSTANCE},route="/predict",status="429",key=""}}': "0+90x120"
    },
    "ChestXraySlow": {
        f'chestxray_request_duration_seconds_bucket{{{INSTANCE},route="/predict",le="0.1"}}': (
            "0+60x120"
        ),
        f'chestxray_request_duration_seconds_bucket{{{INSTANCE},route="/predict",le="5.0"}}': (
            "0+600x120"
        ),
    },
    "ChestXrayMemory": {
        f'chestxray_resident_memory_bytes{{{INSTANCE},pid="8"}}': "210000000+10000000x120"
    },
    "ChestXrayBundlesDisagree": {bundle_info("lungs", "bb"): "1+0x120"},
    "ChestXrayBundlesNotReplaced": {
        f'chestxray_bundle_reloads_total{{{INSTANCE},outcome="failed"}}': "0+0x90 1+0x30"
    },
    "ChestXrayInputCheckRefusesMany": {
        f'chestxray_problems_total{{{INSTANCE},code="not_a_chest_radiograph"}}': "0+300x120"
    },
    "ChestXrayShadowsSkipped": {f"chestxray_shadow_skipped_total{{{INSTANCE}}}": "0+60x120"},
}


def firing(
    promtool: str, tmp_path: Path, series: dict[str, str], *, every: str, at: str
) -> set[str]:
    """The alerts that fire ``at`` a time, as Prometheus evaluates them; samples come ``every``."""
    quiet = [{"alertname": name, "eval_time": at, "exp_alerts": []} for name in ALERTS]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": every, "input_series": inputs, "alert_rule_test": quiet}
    file = tmp_path / "test.yaml"  # JSON is YAML
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": every, "tests": [test]})
    )
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    found = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
    assert bool(found) == (done.returncode != 0), done.stdout + done.stderr
    return found


@pytest.mark.parametrize("trouble", [None, *TROUBLES])
def test_an_alert_fires_for_its_trouble_and_for_no_other(
    trouble: str | None, promtool: str, tmp_path: Path
) -> None:
    series = ALL_WELL | (TROUBLES[trouble] if trouble else {})
    expected = {trouble} if trouble else set()
    assert firing(promtool, tmp_path, series, every="1m", at="2h") == expected


def test_the_very_first_internal_error_fires(promtool: str, tmp_path: Path) -> None:
    series = ALL_WELL | {
        f'chestxray_problems_total{{{INSTANCE},code="internal_error"}}': "0+0x114 1+0x5",
        f'chestxray_requests_total{{{INSTANCE},route="/predict",status="500",key=""}}': (
            "_x115 1+0x5"
        ),
    }
    fired = firing(promtool, tmp_path, series, every="1m", at="2h")
    assert fired == {"ChestXrayServerErrors"}


ELSEWHERE = 'job="chestxray",instance="b:8000"'


@pytest.mark.parametrize(
    ("elsewhere", "fires"),
    [
        ([("lungs", "aa", "answers"), ("water", "bb", "answers")], False),
        ([("lungs", "aa", "answers"), ("water", "b2", "answers")], True),
        ([("lungs", "aa", "answers"), ("wet", "bb", "answers")], True),
        ([("lungs", "aa", "answers")], True),
        ([("lungs", "aa", "answers"), ("water", "bb", "answers"), ("new", "c2", "shadow")], True),
    ],
    ids=["the same, no shadow", "another", "another name", "one too few", "another shadow"],
)
def test_instances_that_answer_otherwise_fire(
    elsewhere: list[tuple[str, str, str]], fires: bool, promtool: str, tmp_path: Path
) -> None:
    there = {bundle_info(*bundle, instance=ELSEWHERE): "1+0x120" for bundle in elsewhere}
    fired = firing(promtool, tmp_path, ALL_WELL | there, every="1m", at="2h")
    assert fired == ({"ChestXrayBundlesDisagree"} if fires else set())


def test_shadows_that_assess_nothing_for_want_of_room_fire(promtool: str, tmp_path: Path) -> None:
    series = {f"chestxray_shadow_skipped_total{{{INSTANCE}}}": "0+1x120"}
    fired = firing(promtool, tmp_path, series, every="1m", at="2h")
    assert fired == {"ChestXrayShadowsSkipped"}


@pytest.mark.parametrize(("mean_later", "fires"), [(0.45, False), (0.7, True)])
def test_a_mean_probability_that_moves_far_in_a_day_fires(
    mean_later: float, fires: bool, promtool: str, tmp_path: Path
) -> None:
    week, day = 8 * 24, 24  # an hour between samples, 100 radiographs in each
    count, total = "chestxray_probability_count", "chestxray_probability_sum"
    later = f"{40 * week + 100 * mean_later}+{100 * mean_later}x{day}"
    moved, other = f'{INSTANCE},model="lungs"', f'{INSTANCE},model="water"'
    series = {
        f"{count}{{{moved}}}": f"0+100x{week + day}",
        f"{total}{{{moved}}}": f"0+40x{week} {later}",
        # So many more that of both together nothing would be seen.
        f"{count}{{{other}}}": f"0+1000x{week + day}",
        f"{total}{{{other}}}": f"0+100x{week + day}",
    }
    fired = firing(promtool, tmp_path, series, every="1h", at=f"{week + day}h")
    assert fired == ({"ChestXrayProbabilityDrift"} if fires else set())


def test_every_alert_is_shown_to_fire() -> None:
    assert set(ALERTS) == {*TROUBLES, "ChestXrayProbabilityDrift"}
