"""S3 and Prometheus beside a cluster that is not made of our own processes: kind, or one of the user's own.

They are processes of this machine, so they need an address of it that the cluster's pods reach, and Prometheus goes
through the API server because this machine has no route to pods.
"""

from __future__ import annotations

from devcluster import prometheus, s3
from devcluster.cluster import Check, Cluster
from devcluster.console import say, step
from devcluster.daemons import Daemons

READY_SECONDS = 30.0


def up(cluster: Cluster, daemons: Daemons) -> None:
    wanted = s3.daemon(daemons.state, cluster.address)
    if daemons.ensure(wanted, READY_SECONDS):
        say(f"  S3 serves {cluster.s3_endpoint}")
    if daemons.pid(prometheus.NAME) is None:
        with step("starting Prometheus"):
            wanted = prometheus.prepare(cluster.kubectl, daemons.state, cluster.address, through_api=True)
            daemons.ensure(wanted, READY_SECONDS)


def checks(cluster: Cluster, daemons: Daemons) -> list[Check]:
    node_lines = cluster.kubectl.attempt("get", "nodes", "--no-headers").stdout.splitlines()
    not_ready = [line.split()[0] for line in node_lines if line.split()[1:2] != ["Ready"]]
    return [
        Check("API server is ready", cluster.kubectl.ready(), cluster.kubectl.server()),
        Check("nodes are Ready", bool(node_lines) and not not_ready, ", ".join(not_ready) or f"{len(node_lines)}"),
        Check("s3 answers", s3.daemon(daemons.state, cluster.address).ready(), cluster.s3_endpoint),
        Check("prometheus answers", prometheus.daemon(daemons.state, cluster.address).ready(), cluster.prometheus_url),
    ]
