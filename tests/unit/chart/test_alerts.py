"""The alerts fire when they should and not before: promtool's own rule tests."""

from typing import Any

import pytest
import yaml

from chart import CHART, promtool

ALERTS = CHART / "files" / "alerts.yaml"
REQUESTS = 'tuningfork_router_requests_total{namespace="ml", rollout="support", slice="stable", outcome="%s"}'

CASES: dict[str, tuple[str, dict[str, str], str, dict[str, str] | None]] = {
    "nobody leads for two minutes": (
        "TuningForkNoLeader",
        {'tuningfork_leader{pod="a"}': "1 0x10", 'tuningfork_leader{pod="b"}': "0x10"},
        "4m",
        {"severity": "critical"},
    ),
    "the operator's series are gone": ("TuningForkNoLeader", {}, "4m", {"severity": "critical"}),
    "the lease moves within a minute": (
        "TuningForkNoLeader",
        {'tuningfork_leader{pod="a"}': "1 0x10", 'tuningfork_leader{pod="b"}': "0 0 1x8"},
        "4m",
        None,
    ),
    "a rollout is degraded": (
        "TuningForkRolloutDegraded",
        {'tuningfork_objects{kind="Rollout", phase="Degraded"}': "0 1x10"},
        "4m",
        {"severity": "warning", "phase": "Degraded"},
    ),
    "a job has failed, which is its owner's business": (
        "TuningForkRolloutDegraded",
        {'tuningfork_objects{kind="FineTuneJob", phase="Failed"}': "0 1x10"},
        "4m",
        None,
    ),
    "one in ten requests to stable fails": (
        "TuningForkServingErrors",
        {REQUESTS % "ok": "0+90x30", REQUESTS % "upstream_error": "0+10x30"},
        "12m",
        {"severity": "critical", "namespace": "ml", "rollout": "support"},
    ),
    "clients make mistakes": (
        "TuningForkServingErrors",
        {REQUESTS % "ok": "0+50x30", REQUESTS % "client_error": "0+50x30"},
        "12m",
        None,
    ),
    "reconciles meet conflicts, which is no error": (
        "TuningForkReconcileErrors",
        {'tuningfork_reconciles_total{kind="Rollout", result="conflict"}': "0+30x60"},
        "30m",
        None,
    ),
    "reconciles fail for a quarter of an hour": (
        "TuningForkReconcileErrors",
        {'tuningfork_reconciles_total{kind="Rollout", result="bug"}': "0+30x60"},
        "30m",
        {"severity": "warning", "kind": "Rollout"},
    ),
}
"""(alert, series by minute, when it is looked at, labels or None)."""


@pytest.mark.parametrize(("alert", "series", "at", "labels"), CASES.values(), ids=CASES)
def test_alert(alert: str, series: dict[str, str], at: str, labels: dict[str, str] | None, tmp_path: Any) -> None:
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
                "eval_time": at,
                "exp_samples": [] if labels is None else [{"labels": _series(alert, labels), "value": 1}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}))
    promtool("test", "rules", str(path))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    fired = {alert for alert, _, _, labels in CASES.values() if labels is not None}
    assert fired == {rule["alert"] for rule in rules}


def _series(alert: str, labels: dict[str, str]) -> str:
    pairs = {"alertname": alert, "alertstate": "firing", **labels}
    return "ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in pairs.items()) + "}"
