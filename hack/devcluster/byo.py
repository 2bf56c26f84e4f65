"""A cluster of the user's own, named explicitly in TUNINGFORK_KUBECONFIG. It is never made and never removed here.

S3 and Prometheus still run on this machine. Pods have to reach it: at the address that leads to the cluster, unless
TUNINGFORK_HOST_ADDRESS names a better one. Thin images are not possible, because the nodes do not see this machine's
files; and loading an image is between the user and their registry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

from devcluster import gobuild, host_services, locks, settings, tools
from devcluster.cluster import Check, Cluster
from devcluster.console import ClusterError, step
from devcluster.daemons import Daemons
from devcluster.kube import Kubectl

VARIABLE = "TUNINGFORK_KUBECONFIG"
ADDRESS_VARIABLE = "TUNINGFORK_HOST_ADDRESS"


class ByoProvider:
    """Brings S3 and Prometheus to a cluster that is already there."""

    name = "byo"

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        # One state a cluster: its Prometheus has that cluster's address and token.
        digest = hashlib.sha256(str(kubeconfig.resolve()).encode()).hexdigest()[:8]
        self.state = settings.user_state_dir() / f"byo-{digest}"
        self.daemons = Daemons(self.state)

    def exists(self) -> bool:
        return True

    def up(self) -> Cluster:
        with locks.exclusive(self.state.with_suffix(".lock"), "this cluster"):
            cluster = self.find()
            host_services.up(cluster, self.daemons)
        return cluster

    def find(self) -> Cluster:
        if not self.kubeconfig.is_file():
            raise ClusterError(f"{VARIABLE} names {self.kubeconfig}, and there is no such file.")
        kubectl = Kubectl(gobuild.binary(tools.KUBECTL), self.kubeconfig)
        if not kubectl.ready():
            raise ClusterError(f"The cluster of {VARIABLE}={self.kubeconfig} does not answer at {kubectl.server()}.")
        return Cluster(self.name, kubectl, _address(kubectl.server()), host_root=None)

    def down(self) -> None:
        with locks.exclusive(self.state.with_suffix(".lock"), "this cluster"):
            with step("ending S3 and Prometheus (the cluster itself is yours and stays)"):
                self.daemons.stop(self.daemons.names())
            shutil.rmtree(self.state, ignore_errors=True)

    def checks(self) -> list[Check]:
        return host_services.checks(self.find(), self.daemons)

    def load_image(self, archive: Path) -> None:
        raise ClusterError(f"{archive} cannot be loaded into a cluster of yours. Push it to a registry that it reads.")


def _address(server: str) -> str:
    """This machine's address on the way to the API server."""
    if chosen := os.environ.get(ADDRESS_VARIABLE):
        return chosen
    url = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((url.hostname, url.port or 443))  # UDP: looks up the route and sends nothing
        address: str = probe.getsockname()[0]
    return address
