"""Prometheus: scrapes every pod that asks for it, every 5 seconds.

A pod asks with the annotation `prometheus.io/scrape: "true"` or the label `tuningfork.dev/scrape: "true"`; the port is the
annotation `prometheus.io/port`, else the container port named `metrics`. `honor_labels`, because our own series carry a
`namespace` label of the object they speak of, which must not be renamed to `exported_namespace`.

On the local cluster pods are reached directly. Where this machine has no route to pods (kind, a cluster elsewhere) the
scrape goes through the API server's pod proxy.

Built from Go modules and not Debian's, which was compiled without Kubernetes service discovery.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from devcluster import gobuild, probes, settings, tools
from devcluster.console import ClusterError
from devcluster.daemons import Daemon
from devcluster.kube import Json, Kubectl, write_private

NAME = "prometheus"
ACCOUNT = "tuningfork-prometheus"
NAMESPACE = "kube-system"
SCRAPE_SECONDS = 5
TOKEN_SECONDS = 15
"""For the token controller to fill a new Secret: well under a second on an idle cluster."""

_POD = "__meta_kubernetes_pod"


def prepare(kubectl: Kubectl, state: Path, address: str, *, through_api: bool) -> Daemon:
    """Its account in the cluster, its configuration, and how to run it."""
    kubectl.apply(*account())
    folder = state / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    token, authority = _credentials(kubectl)
    write_private(folder / "token", token)
    (folder / "ca.crt").write_bytes(authority)
    config = folder / "prometheus.yml"
    config.write_text(json.dumps(configuration(kubectl.server(), folder, through_api=through_api), indent=2))
    return daemon(state, address)


def daemon(state: Path, address: str) -> Daemon:
    folder = state / "prometheus"
    listen = f"{address}:{settings.PROMETHEUS_PORT}"
    return Daemon(
        name=NAME,
        argv=[
            gobuild.binary(tools.PROMETHEUS),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={listen}",
            "--web.enable-lifecycle",
        ],
        ready=lambda: probes.http_ok(f"http://{listen}/-/ready"),
    )


def account() -> tuple[Json, ...]:
    """May list pods and read them through the proxy, and nothing else."""
    meta = {"name": ACCOUNT, "namespace": NAMESPACE}
    token = {**meta, "annotations": {"kubernetes.io/service-account.name": ACCOUNT}}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": token},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
    )


def _credentials(kubectl: Kubectl) -> tuple[str, bytes]:
    deadline = time.monotonic() + TOKEN_SECONDS
    while time.monotonic() < deadline:
        data = kubectl.get("secret", ACCOUNT, f"--namespace={NAMESPACE}").get("data") or {}
        if "token" in data and "ca.crt" in data:
            return base64.b64decode(data["token"]).decode(), base64.b64decode(data["ca.crt"])
        time.sleep(probes.POLL_SECONDS)
    raise ClusterError(f"The cluster gave Prometheus' account no token within {TOKEN_SECONDS} s.")


def configuration(server: str, folder: Path, *, through_api: bool) -> Json:
    access = {
        "authorization": {"credentials_file": str(folder / "token")},
        "tls_config": {"ca_file": str(folder / "ca.crt")},
    }
    job: Json = {
        "job_name": "pods",
        "honor_labels": True,
        "kubernetes_sd_configs": [{"role": "pod", "api_server": server, **access}],
        "relabel_configs": [*_select(), *(_through_api(server) if through_api else _directly()), *_name()],
    }
    if through_api:
        job |= {"scheme": "https", **access}
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS - 1}s"},
        "scrape_configs": [job],
    }


def _select() -> list[Json]:
    """Running pods that ask; of those without an explicit port only the container port called `metrics`."""
    asks = [f"{_POD}_annotation_prometheus_io_scrape", f"{_POD}_label_tuningfork_dev_scrape"]
    port = [f"{_POD}_annotation_prometheus_io_port", f"{_POD}_container_port_name"]
    chosen = "__tmp_port"
    numbers = [f"{_POD}_annotation_prometheus_io_port", f"{_POD}_container_port_number"]
    return [
        {"source_labels": asks, "regex": "true;.*|.*;true", "action": "keep"},
        {"source_labels": [f"{_POD}_phase"], "regex": "Pending|Succeeded|Failed", "action": "drop"},
        {"source_labels": port, "regex": "[0-9]+;.*|.*;metrics", "action": "keep"},
        {"source_labels": numbers, "regex": ";([0-9]+)|([0-9]+);.*", "replacement": "$1$2", "target_label": chosen},
        {
            "source_labels": [f"{_POD}_annotation_prometheus_io_path"],
            "regex": "(.+)",
            "target_label": "__metrics_path__",
        },
    ]


def _directly() -> list[Json]:
    return [
        {
            "source_labels": [f"{_POD}_ip", "__tmp_port"],
            "separator": ":",
            "target_label": "__address__",
        },
        {
            "source_labels": [f"{_POD}_annotation_prometheus_io_scheme"],
            "regex": "(https?)",
            "target_label": "__scheme__",
        },
    ]


def _through_api(server: str) -> list[Json]:
    return [
        {"source_labels": [f"{_POD}_ip", "__tmp_port"], "separator": ":", "target_label": "instance"},
        {
            "source_labels": ["__meta_kubernetes_namespace", f"{_POD}_name", "__tmp_port", "__metrics_path__"],
            "regex": "(.*);(.*);(.*);(.*)",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy$4",
            "target_label": "__metrics_path__",
        },
        {"target_label": "__address__", "replacement": urlsplit(server).netloc},
    ]


def _name() -> list[Json]:
    return [
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{_POD}_name"], "target_label": "pod"},
        {"source_labels": [f"{_POD}_node_name"], "target_label": "node"},
    ]
