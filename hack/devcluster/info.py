"""What a checkout learns about the cluster: `.cluster/kubeconfig` and `.cluster/info.json`, written by `up` and `info`.

Written anew each time, because the thin fragment depends on the checkout's own virtual environment, which may come later
than the cluster.
"""

from __future__ import annotations

import json
from pathlib import Path

from devcluster import gobuild, settings, thin, tools
from devcluster.cluster import Cluster
from devcluster.console import say
from devcluster.kube import Json, write_private


def write(cluster: Cluster, checkout: Path) -> Json:
    folder = checkout / ".cluster"
    kubeconfig = folder / "kubeconfig"
    write_private(kubeconfig, cluster.kubectl.kubeconfig.read_text())
    info = describe(cluster, kubeconfig, checkout)
    write_private(folder / "info.json", json.dumps(info, indent=2) + "\n")
    return info


def describe(cluster: Cluster, kubeconfig: Path, checkout: Path) -> Json:
    return {
        "provider": cluster.provider,
        "kubeconfig": str(kubeconfig),
        "kubectl": str(cluster.kubectl.program),
        "helm": str(gobuild.binary(tools.HELM)),
        "nodeAddress": cluster.address,
        "s3": {
            "endpoint": cluster.s3_endpoint,
            "accessKey": settings.S3_ACCESS_KEY,
            "secretKey": settings.S3_SECRET_KEY,
            "region": settings.S3_REGION,
        },
        "prometheus": {"url": cluster.prometheus_url},
        "thin": None if cluster.host_root is None else thin.fragment(checkout, cluster.host_root),
    }


def warn_unreadable(cluster: Cluster, checkout: Path) -> None:
    for path in thin.unreadable(checkout) if cluster.host_root is not None else ():
        say(f"  warning: thin pods run as uid {thin.UID} and cannot read {path}; `chmod o+rx {path}` lets them")
