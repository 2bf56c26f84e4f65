"""kind, where a Docker engine answers: the same cluster for whoever has no root.

kind brings its own control plane, kubelet, network and CoreDNS. S3 and Prometheus stay processes of this machine, at the
gateway of kind's Docker network, which is this machine's address for the host and for pods alike. The node sees this
machine's root folder read-only below /host, so thin images work as they do on the local cluster.

A Docker engine in a virtual machine (Docker Desktop) has its gateway elsewhere, and shares no /usr; there, give
TUNINGFORK_KUBECONFIG and TUNINGFORK_HOST_ADDRESS instead.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from devcluster import docker_archive, gobuild, host_services, locks, settings, shell, thin, tools
from devcluster.cluster import Check, Cluster
from devcluster.console import ClusterError, say, step
from devcluster.daemons import Daemons
from devcluster.kube import Json, Kubectl

HOST_ROOT = "/host"
DOCKER_ANSWER_SECONDS = 10.0
IMAGE_VARIABLE = "TUNINGFORK_KIND_IMAGE"
"""A node image other than kind's default, for instance one from a mirror."""


def docker_answers() -> bool:
    return shell.attempt(["docker", "info"], timeout=DOCKER_ANSWER_SECONDS).returncode == 0


class KindProvider:
    """One kind cluster, called tuningfork."""

    name = "kind"

    def __init__(self) -> None:
        self.state = settings.user_state_dir() / "kind"
        self.daemons = Daemons(self.state)
        self.kubeconfig = self.state / "kubeconfig"

    def exists(self) -> bool:
        return self.state.exists()

    def up(self) -> Cluster:
        with locks.exclusive(self.state.with_suffix(".lock"), "the kind cluster"):
            if not self._is_well():
                self._create()
            cluster = self.find()
            host_services.up(cluster, self.daemons)
        return cluster

    def find(self) -> Cluster:
        if not self.kubeconfig.exists():
            raise ClusterError("No kind cluster runs. `hack/cluster up` starts one.")
        return Cluster(self.name, self._kubectl(), _gateway(), HOST_ROOT)

    def down(self) -> None:
        if not self.exists():
            say("  no cluster runs")
            return
        with locks.exclusive(self.state.with_suffix(".lock"), "the kind cluster"):
            with step("removing the kind cluster"):
                self.daemons.stop(self.daemons.names())
                self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}")
            shutil.rmtree(self.state, ignore_errors=True)

    def checks(self) -> list[Check]:
        return host_services.checks(self.find(), self.daemons)

    def load_image(self, archive: Path) -> None:
        self._kind("load", "image-archive", str(archive))

    def _is_well(self) -> bool:
        return self.kubeconfig.exists() and self._kubectl().ready()

    def _create(self) -> None:
        self.daemons.stop(self.daemons.names())  # they speak to the cluster that is replaced
        self.state.mkdir(parents=True, exist_ok=True)
        config = self.state / "kind.json"
        config.write_text(json.dumps(configuration(), indent=2))
        self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}")  # succeeds when there is none
        image = os.environ.get(IMAGE_VARIABLE)
        arguments: list[str] = [f"--config={config}", f"--kubeconfig={self.kubeconfig}", "--wait=180s"]
        with step("creating a kind cluster (2 min)"):
            self._kind("create", "cluster", *arguments, *([f"--image={image}"] if image else []))
        archive = self.state / "thin.tar"
        docker_archive.write(thin.image(), archive)
        self.load_image(archive)

    def _kubectl(self) -> Kubectl:
        return Kubectl(gobuild.binary(tools.KUBECTL), self.kubeconfig)

    def _kind(self, *arguments: str) -> None:
        shell.run([*_kind_program(), *arguments, f"--name={settings.CLUSTER_NAME}"])


def configuration() -> Json:
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"podSubnet": settings.POD_CIDR, "serviceSubnet": settings.SERVICE_CIDR},
        "nodes": [
            {
                "role": "control-plane",
                "extraMounts": [{"hostPath": "/", "containerPath": HOST_ROOT, "readOnly": True}],
            }
        ],
    }


def _kind_program() -> Sequence[str | Path]:
    return [shutil.which("kind") or gobuild.binary(tools.KIND)]


def _gateway() -> str:
    """The IPv4 gateway of the network that kind makes; it has one for IPv6, too."""
    template = "{{range .IPAM.Config}}{{println .Gateway}}{{end}}"
    answer = shell.run(["docker", "network", "inspect", "kind", f"--format={template}"])
    for word in answer.split():
        if ipaddress.ip_address(word.partition("/")[0]).version == 4:
            return word
    raise ClusterError(f"Docker's network `kind` has no IPv4 gateway: {answer.strip() or 'nothing'}.")
