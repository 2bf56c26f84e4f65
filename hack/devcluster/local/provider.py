"""Attach to the machine's cluster if it is well, repair what stands beside it, else clean up and start afresh.

A cluster that is not well is not repaired in its core: it starts with an empty etcd and an empty S3. A development
cluster's data is worth less than the certainty that every start leads to the same state. What stands beside the core
(S3, Prometheus, CoreDNS) is restarted in place, with its data.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from devcluster import debian, gobuild, locks, probes, prometheus, s3, settings, tools
from devcluster.cluster import Check, Cluster
from devcluster.console import ClusterError, duration, say, step
from devcluster.daemons import Daemon, Daemons
from devcluster.kube import Kubectl
from devcluster.local import controlplane, dns, leftovers, network, node, node_images
from devcluster.local.controlplane import Files

START_SECONDS = 60.0
"""For one daemon, on a machine that is busy with a build. Idle, the API server takes 3 s and the rest less."""
PATIENCE_SECONDS = 30.0
CORE = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("containerd", "kubelet", "kube-proxy"),
)
BESIDE = (dns.NAME, s3.NAME, prometheus.NAME)

NO_WAY = (
    "There is no way to a cluster on this machine: no Docker engine answers, and the local cluster needs {need}. "
    "Install and start Docker (kind then runs in it), or run this as root on Linux (`sudo make cluster`), or name a "
    "cluster of yours in TUNINGFORK_KUBECONFIG."
)


class LocalProvider:
    """One cluster for the machine, whichever checkout asks."""

    name = "local"
    state = settings.LOCAL_STATE

    def __init__(self) -> None:
        self.files = Files(self.state)
        self.daemons = Daemons(self.state)

    def exists(self) -> bool:
        return self.state.exists()

    def up(self) -> Cluster:
        self._require_root()
        with locks.exclusive(settings.LOCAL_LOCK, "the local cluster"):
            self._fetch_programs()
            cluster = self._cluster()
            if not self._core_is_well(cluster.kubectl):
                self._start_afresh(cluster)
            self._start_what_is_beside(cluster)
        return cluster

    def find(self) -> Cluster:
        if not self.exists():
            raise ClusterError("No cluster runs on this machine. `hack/cluster up` starts one.")
        self._require_root()
        return self._cluster()

    def down(self) -> None:
        self._require_root()
        with locks.exclusive(settings.LOCAL_LOCK, "the local cluster"):
            with step("removing the local cluster"):
                leftovers.remove()
            settings.LOCAL_LOCK.unlink(missing_ok=True)

    def checks(self) -> list[Check]:
        cluster = self.find()
        names = [*CORE, *BESIDE, *(name for name in self.daemons.names() if name not in (*CORE, *BESIDE))]
        pids = {name: self.daemons.pid(name) for name in names}
        running = [Check(name, pid is not None, f"pid {pid}" if pid else "not running") for name, pid in pids.items()]
        beside = [
            Check("dns answers", dns.daemon(self.files).ready()),
            Check("s3 answers", s3.daemon(self.state, cluster.address).ready(), cluster.s3_endpoint),
            Check("prometheus answers", probes.http_ok(f"{cluster.prometheus_url}/-/ready"), cluster.prometheus_url),
        ]
        node_is_ready = self._node_is_ready(cluster.kubectl)
        return [*running, Check(f"node {settings.NODE_NAME} is Ready", node_is_ready), *beside]

    def load_image(self, archive: Path) -> None:
        self._require_root()
        node_images.load(archive)

    def _cluster(self) -> Cluster:
        kubectl = Kubectl(gobuild.binary(tools.KUBERNETES, "kubectl"), self.files.kubeconfig("admin"))
        return Cluster(self.name, kubectl, settings.NODE_ADDRESS, host_root="")

    def _require_root(self) -> None:
        if platform.system() != "Linux":
            raise ClusterError(NO_WAY.format(need="Linux"))
        if os.geteuid() != 0 and self.exists():
            raise ClusterError("The cluster of this machine was started by root, and only root can use it. Be root.")
        if os.geteuid() != 0:
            raise ClusterError(NO_WAY.format(need="root"))

    def _core_is_well(self, kubectl: Kubectl) -> bool:
        if not kubectl.kubeconfig.exists() or any(self.daemons.pid(name) is None for name in CORE):
            return False
        # All of them run, so somebody may be using it: a machine under load gets time to answer before it is torn down.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (kubectl.ready() and self._node_is_ready(kubectl)):
            if time.monotonic() > deadline:
                return False
            time.sleep(1)
        return True

    def _node_is_ready(self, kubectl: Kubectl) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        answer = kubectl.attempt("get", "node", settings.NODE_NAME, "-o", f"jsonpath={path}", "--request-timeout=5s")
        return answer.returncode == 0 and answer.stdout == "True"

    def _start_what_is_beside(self, cluster: Cluster) -> None:
        """DNS, S3 and Prometheus: after a fresh start, or those that died since, with their data."""
        missing = [name for name in BESIDE if self.daemons.pid(name) is None]
        if not missing:
            return
        with step(f"starting {', '.join(missing)}"):
            cluster.kubectl.apply(*dns.objects())
            scraper = prometheus.prepare(cluster.kubectl, self.state, cluster.address, through_api=False)
            beside = [dns.daemon(self.files), s3.daemon(self.state, cluster.address), scraper]
            self._start([daemon for daemon in beside if daemon.name in missing])

    def _start_afresh(self, cluster: Cluster) -> None:
        if kubelets := leftovers.others(*leftovers.KUBELETS):
            raise ClusterError(
                f"Another Kubernetes node runs on this machine (pid {kubelets[0]}); the two would overwrite each other's "
                f"iptables rules. Stop it, or name that cluster's kubeconfig in TUNINGFORK_KUBECONFIG."
            )
        started = time.monotonic()
        if self.exists():
            say("  the cluster of this machine is not well: starting afresh (its objects and its S3 data are dropped)")
        with step("clearing leftovers of an earlier cluster"):
            leftovers.remove()
        self.state.mkdir(mode=0o700)
        settings.LOCAL_RUN.mkdir(mode=0o711)
        with step("starting the control plane"):
            network.create(self.files)
            controlplane.create_identities(self.files)
            self._start_control_plane(cluster.kubectl)
        with step("starting the node"):
            self._start_node(cluster.kubectl)
        say(f"  Kubernetes {settings.KUBERNETES_VERSION} runs after {duration(time.monotonic() - started)}")

    def _fetch_programs(self) -> None:
        debian.ensure(debian.LOCAL_NODE)
        for tool in (tools.ETCD, tools.KUBERNETES, tools.VERSITYGW, tools.COREDNS, tools.PROMETHEUS):
            gobuild.ensure(tool)

    def _start_control_plane(self, kubectl: Kubectl) -> None:
        self._start([controlplane.etcd(self.files), controlplane.api_server(self.files, kubectl)])
        self._start([controlplane.controller_manager(self.files), controlplane.scheduler(self.files)])

    def _start_node(self, kubectl: Kubectl) -> None:
        node.create_cgroup()
        self._start([node.containerd(self.files)])
        node_images.load_own(self.state / "images")
        filtered = network.bridge_is_filtered()
        self._start([node.kubelet(self.files), node.kube_proxy(self.files, bridge_is_filtered=filtered)])
        self._wait("the node is Ready", lambda: self._node_is_ready(kubectl))
        # A pod created before its namespace's account is refused.
        account = ("get", "serviceaccount", "default", "--namespace=default")
        self._wait("the default service account", lambda: kubectl.attempt(*account).returncode == 0)

    def _start(self, daemons: Sequence[Daemon]) -> None:
        """All at once; each waits for those it needs by itself."""
        for daemon in daemons:
            self.daemons.start(daemon)
        for daemon in daemons:
            self.daemons.wait_ready(daemon, START_SECONDS)

    def _wait(self, what: str, check: Callable[[], bool]) -> None:
        try:
            probes.wait_until(check, START_SECONDS, what)
        except ClusterError as error:
            raise ClusterError(f"{error} See the logs in {self.state / 'logs'}.") from None
