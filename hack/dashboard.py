"""The Grafana dashboard, as a table of panels; `make generate` writes it into the chart.

Grafana's JSON repeats some forty lines a panel of which two matter, the query and its unit, so the JSON is derived. The demo and
the tests read it back through `panel_queries`: every query must parse, name series that exist, and return data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuningfork.delivery.queries import DURATION, FAILED_OUTCOMES, FEEDBACK, REQUESTS, UNCOUNTED_OUTCOMES

Json = dict[str, Any]

SERVED = f'outcome!~"{"|".join(sorted(UNCOUNTED_OUTCOMES))}"'
FAILED = f'outcome=~"{"|".join(sorted(FAILED_OUTCOMES))}"'
"""As an analysis counts."""
BAD_RECONCILES = 'result=~"transient|permanent|bug"'
"""A conflict is no error: somebody else was faster, and the object is looked at again."""
ROUTE = 'namespace=~"$namespace", rollout=~"$rollout"'
DASHBOARD = Path(__file__).resolve().parent.parent / "charts" / "tuningfork" / "files" / "dashboard.json"
"""Where it is generated to."""
COLUMNS = 24
"""Of Grafana's grid."""
HEIGHT = 8


@dataclass(frozen=True)
class Panel:
    """A graph. ``queries`` are (PromQL, legend)."""

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    stacked: bool = False
    width: int = 8


def _rate(series: str, by: str, labels: str = ROUTE) -> str:
    return f"sum by ({by}) (rate({series}{{{labels}}}[$__rate_interval]))"


def _quantile(series: str, by: str, labels: str = ROUTE, quantile: float = 0.95) -> str:
    return f"histogram_quantile({quantile}, {_rate(series + '_bucket', f'le, {by}', labels)})"


def _share(part: str, whole: str) -> str:
    """0 where the part has no series yet, so that a version without errors shows as 0 and not as nothing."""
    return f"({part} or 0 * {whole}) / {whole}"


_RECONCILES = "tuningfork_reconciles_total"

# Gauges of objects are taken as max: both replicas of the operator may have them, and they say the same.
ROWS: dict[str, tuple[Panel, ...]] = {
    "Fine-tuning": (
        Panel(
            "Jobs by phase",
            "FineTuneJobs of the whole cluster.",
            "short",
            (('max by (phase) (tuningfork_objects{kind="FineTuneJob"})', "{{phase}}"),),
            stacked=True,
        ),
        Panel(
            "Progress",
            "Share of the optimizer steps that are done.",
            "percentunit",
            (
                (
                    'max by (namespace, job) (tuningfork_job_progress_ratio{namespace=~"$namespace"})',
                    "{{namespace}}/{{job}}",
                ),
            ),
        ),
        Panel(
            "Training loss",
            "Of the last logged step, nats a token.",
            "none",
            (('max by (namespace, job) (tuningfork_job_loss{namespace=~"$namespace"})', "{{namespace}}/{{job}}"),),
        ),
    ),
    "Rollouts": (
        Panel(
            "Weight by version",
            "Share of the users that routers send to a version, leases considered.",
            "percentunit",
            (
                (
                    f"max by (rollout, track, model_version) (tuningfork_router_weight_ratio{{{ROUTE}}})",
                    "{{rollout}} {{model_version}} ({{track}})",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Requests by version",
            "Finished requests a second; a stream counts when it ends.",
            "reqps",
            ((_rate(REQUESTS, "model_version, outcome"), "{{model_version}} {{outcome}}"),),
        ),
        Panel(
            "Error ratio by version",
            "Share of requests that the serving side failed.",
            "percentunit",
            (
                (
                    _share(
                        _rate(REQUESTS, "model_version, slice", f"{ROUTE}, {FAILED}"),
                        _rate(REQUESTS, "model_version, slice", f"{ROUTE}, {SERVED}"),
                    ),
                    "{{model_version}} {{slice}}",
                ),
            ),
        ),
        Panel(
            "Latency p95 by version",
            "From the first byte of the request to the last of the answer.",
            "s",
            ((_quantile(DURATION, "model_version"), "{{model_version}}"),),
        ),
        Panel(
            "Time to first token p95 by version",
            "Streams only.",
            "s",
            ((_quantile("tuningfork_router_time_to_first_token_seconds", "model_version"), "{{model_version}}"),),
        ),
        Panel(
            "Feedback by version",
            "Ratings a second.",
            "cps",
            ((_rate(FEEDBACK, "model_version, rating"), "{{model_version}} {{rating}}"),),
        ),
        Panel(
            "Router overhead p95",
            "What the router adds to the engine's own time.",
            "s",
            ((_quantile("tuningfork_router_overhead_seconds", "rollout"), "{{rollout}}"),),
            width=12,
        ),
        Panel(
            "Engine load",
            "Requests that engines work on, and those that wait.",
            "short",
            (
                ('sum by (pod) (vllm:num_requests_running{namespace=~"$namespace"})', "{{pod}} running"),
                ('sum by (pod) (vllm:num_requests_waiting{namespace=~"$namespace"})', "{{pod}} waiting"),
            ),
            width=12,
        ),
    ),
    "Operator": (
        Panel(
            "Queue depth and leaders",
            "Objects that wait for a worker; replicas that lead, which must be one.",
            "short",
            (("max(tuningfork_queue_depth)", "waiting"), ("sum(tuningfork_leader)", "leaders")),
            width=6,
        ),
        Panel(
            "Reconciles",
            "A second, by kind and result.",
            "ops",
            ((_rate(_RECONCILES, "kind, result", ""), "{{kind}} {{result}}"),),
            width=6,
        ),
        Panel(
            "Reconcile errors",
            "Share of reconciles that ended with an error and are tried again.",
            "percentunit",
            (
                (
                    _share(
                        _rate(_RECONCILES, "kind", BAD_RECONCILES),
                        _rate(_RECONCILES, "kind", ""),
                    ),
                    "{{kind}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Reconcile duration p95",
            "From taking an object off the queue to its status being written.",
            "s",
            ((_quantile("tuningfork_reconcile_duration_seconds", "kind", ""), "{{kind}}"),),
            width=6,
        ),
    ),
}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def build_dashboard() -> Json:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "tuningfork",
        "title": "TuningFork",
        "description": "Fine-tuning jobs, rollouts by version, and the operator.",
        "tags": ["tuningfork"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[Json]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        _variable(
            "namespace",
            "label_values({__name__=~'tuningfork_router_requests_total|tuningfork_job_progress_ratio'}, namespace)",
        ),
        _variable("rollout", 'label_values(tuningfork_router_requests_total{namespace=~"$namespace"}, rollout)'),
    ]


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> list[Json]:
    panels: list[Json] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        top, left = top + 1, 0
        for panel in row:
            if left + panel.width > COLUMNS:
                top, left = top + HEIGHT, 0
            place = {"x": left, "y": top, "w": panel.width, "h": HEIGHT}
            panels.append(_graph(panel, len(panels) + 1, place))
            left += panel.width
        top += HEIGHT
    return panels


def _graph(panel: Panel, number: int, place: Json) -> Json:
    drawn = {"fillOpacity": 30, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 0}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": drawn}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def panel_queries(dashboard: Json, *, window: str = "1m") -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query, variables replaced by "all" and the rate interval by ``window``."""
    values = {f"${v['name']}": v["allValue"] for v in dashboard["templating"]["list"] if "allValue" in v}
    values["$__rate_interval"] = window
    found = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in values.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found
