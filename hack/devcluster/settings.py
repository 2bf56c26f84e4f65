"""Names, versions, addresses and ports, in one place.

The ports are odd on purpose (16xxx): a developer's machine may already run something on 6443, 9090 or 9000. The node has
an address of its own, on a bridge that only exists while the cluster does. So S3, Prometheus and the API server have one
URL that is right on the host and inside pods alike, it survives a change of network, and nobody else on the network can
reach it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

KUBERNETES_VERSION = "v1.34.4"
ETCD_VERSION = "v3.6.7"
"""Not Debian's 3.4: without RequestWatchProgress kwok's watches end and simulated nodes go NotReady after ten minutes."""
COREDNS_VERSION = "v1.12.4"
VERSITYGW_VERSION = "v1.8.0"
PROMETHEUS_VERSION = "v0.315.1"
"""As Go numbers it; it calls itself 3.15.1. Like all the others it builds with any Go 1.26."""
HELM_VERSION = "v4.3.1"
KWOK_VERSION = "v0.7.0"
KIND_VERSION = "v0.30.0"
"""The first whose default node image is Kubernetes 1.34."""

CLUSTER_NAME = "tuningfork"
NODE_NAME = "tuningfork-dev"
BRIDGE = "tuningfork0"

NODE_ADDRESS = "10.245.0.1"
POD_CIDR = "10.244.0.0/24"
POD_GATEWAY = "10.244.0.1"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"

API_PORT = 16443
ETCD_PORT = 16379
ETCD_PEER_PORT = 16380
KUBELET_PORT = 16250
KUBELET_HEALTH_PORT = 16248
PROXY_HEALTH_PORT = 16256
PROXY_METRICS_PORT = 16249
CONTROLLER_MANAGER_PORT = 16257
SCHEDULER_PORT = 16259
DNS_PORT = 16053
DNS_READY_PORT = 16181
S3_PORT = 16070
PROMETHEUS_PORT = 16090
KWOK_PORT = 16247

S3_ACCESS_KEY = "tuningfork"
S3_SECRET_KEY = "tuningfork-dev-only"  # noqa: S105 - a development cluster's, printed in info.json
S3_REGION = "us-east-1"

PAUSE_IMAGE = "tuningfork.dev/pause:dev"
THIN_IMAGE = "tuningfork.dev/thin:dev"

LOCAL_STATE = Path("/var/lib/tuningfork-cluster")
LOCAL_RUN = Path("/run/tuningfork-cluster")
LOCAL_LOCK = Path("/run/lock/tuningfork-cluster.lock")
"""Outside the state, which `up` and `down` delete while they hold the lock."""


def direct(environment: Mapping[str, str]) -> dict[str, str]:
    """Keeps a proxy for the internet, if the environment names one, out of conversations within the cluster."""
    ours = ("localhost", "127.0.0.1", NODE_ADDRESS, POD_CIDR, SERVICE_CIDR, ".svc", ".cluster.local")
    theirs = environment.get("NO_PROXY") or environment.get("no_proxy")
    value = ",".join([*([theirs] if theirs else []), *ours])
    return {"NO_PROXY": value, "no_proxy": value}


def cache_dir() -> Path:
    """Binaries by version, shared by all checkouts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuningfork"


def user_state_dir() -> Path:
    """State of the providers that need no root: kind, and a cluster of one's own."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tuningfork"
