"""Which pods are scraped, where, and under which labels: the relabelling rules are run here, not compared as text."""

import re
from pathlib import Path
from typing import Any

import pytest

from devcluster import prometheus

SERVER = "https://10.245.0.1:16443"


def relabel(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str] | None:
    """Prometheus' `keep`, `drop` and `replace`, as its documentation defines them."""
    labels = dict(labels)
    for rule in rules:
        value = rule.get("separator", ";").join(labels.get(name, "") for name in rule.get("source_labels", []))
        match = re.fullmatch(rule.get("regex", "(.*)"), value)
        action = rule.get("action", "replace")
        if (action == "keep" and not match) or (action == "drop" and match):
            return None
        if action == "replace" and match:
            template = re.sub(r"\$(\d)", r"\\\1", rule.get("replacement", "$1"))
            labels[rule["target_label"]] = match.expand(template)
    return labels


def scrape(labels: dict[str, str], *, through_api: bool = False) -> dict[str, str] | None:
    [job] = prometheus.configuration(SERVER, Path("/state"), through_api=through_api)["scrape_configs"]
    return relabel(
        {"__scheme__": job.get("scheme", "http"), "__metrics_path__": "/metrics", **labels}, job["relabel_configs"]
    )


def pod(**meta: str) -> dict[str, str]:
    always = {"ip": "10.244.0.7", "name": "router-0", "phase": "Running", "node_name": "dev"}
    named = {f"__meta_kubernetes_pod_{name}": value for name, value in (always | meta).items()}
    return {"__meta_kubernetes_namespace": "ml", **named}


ANNOTATED = pod(annotation_prometheus_io_scrape="true", annotation_prometheus_io_port="8080")


def url(target: dict[str, str] | None) -> str | None:
    return None if target is None else f"{target['__scheme__']}://{target['__address__']}{target['__metrics_path__']}"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(ANNOTATED, "http://10.244.0.7:8080/metrics", id="annotated with a port"),
        pytest.param(
            ANNOTATED | pod(annotation_prometheus_io_path="/stats", container_port_number="9"),
            "http://10.244.0.7:8080/stats",
            id="annotated with a path; the annotated port wins over the container's",
        ),
        pytest.param(
            pod(label_tuningfork_dev_scrape="true", container_port_name="metrics", container_port_number="9100"),
            "http://10.244.0.7:9100/metrics",
            id="labelled, at the port called metrics",
        ),
        pytest.param(
            pod(label_tuningfork_dev_scrape="true", container_port_name="http", container_port_number="80"),
            None,
            id="labelled, but this is another port",
        ),
        pytest.param(pod(annotation_prometheus_io_port="8080"), None, id="does not ask"),
        pytest.param(ANNOTATED | pod(phase="Succeeded"), None, id="has ended"),
    ],
)
def test_a_pod_that_asks_is_scraped(labels: dict[str, str], expected: str | None) -> None:
    assert url(scrape(labels)) == expected


def test_a_target_says_which_pod_it_is() -> None:
    target = scrape(ANNOTATED)
    assert target is not None
    assert {name: target[name] for name in ("namespace", "pod", "node")} == {
        "namespace": "ml",
        "pod": "router-0",
        "node": "dev",
    }


def test_without_a_route_to_pods_the_api_server_is_asked() -> None:
    target = scrape(ANNOTATED, through_api=True)
    assert url(target) == f"{SERVER}/api/v1/namespaces/ml/pods/router-0:8080/proxy/metrics"
    assert target is not None
    assert target["instance"] == "10.244.0.7:8080"


def test_our_own_namespace_label_is_kept() -> None:
    [job] = prometheus.configuration(SERVER, Path("/state"), through_api=False)["scrape_configs"]
    assert job["honor_labels"] is True
