"""etcd, API server, controller manager, scheduler, and who may speak to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devcluster import gobuild, pki, probes, settings, tools
from devcluster.daemons import Daemon
from devcluster.kube import Kubectl, kubeconfig, write_private

SERVER = f"https://{settings.NODE_ADDRESS}:{settings.API_PORT}"
LOOPBACK = "127.0.0.1"

USERS = {
    "admin": ("tuningfork-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{settings.NODE_NAME}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", ""),
    "coredns": ("system:coredns", ""),
}
"""File name -> user and group in its certificate. The names are those that RBAC's built-in roles are bound to."""


@dataclass(frozen=True)
class Files:
    """Where things lie in the state folder."""

    state: Path

    @property
    def authority(self) -> pki.Authority:
        return pki.Authority(self.state / "pki")

    def pair(self, name: str) -> pki.Pair:
        return pki.Pair(self.state / "pki" / f"{name}.crt", self.state / "pki" / f"{name}.key")

    def kubeconfig(self, user: str) -> Path:
        return self.state / "kubeconfigs" / user


def create_identities(files: Files) -> None:
    """Certificates and kubeconfigs of everybody."""
    authority = files.authority
    authority.create()
    authority.service_account_keys()
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    addresses = (settings.NODE_ADDRESS, settings.API_SERVICE_ADDRESS, LOOPBACK)
    alt_names = ",".join([*(f"DNS:{name}" for name in ("localhost", *names)), *(f"IP:{ip}" for ip in addresses)])
    authority.issue("apiserver", "kube-apiserver", alt_names=alt_names)
    authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    for user, (common_name, group) in USERS.items():
        client = authority.issue(user, common_name, group)
        write_private(files.kubeconfig(user), kubeconfig(SERVER, authority.pair.cert, client, common_name))


def etcd(files: Files) -> Daemon:
    client = f"http://{LOOPBACK}:{settings.ETCD_PORT}"
    peer = f"http://{LOOPBACK}:{settings.ETCD_PEER_PORT}"
    return Daemon(
        name="etcd",
        argv=[
            gobuild.binary(tools.ETCD),
            "--name=dev",
            f"--data-dir={files.state / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=dev={peer}",
            # A crash of the machine loses the cluster anyway: `up` starts afresh then.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        ready=lambda: probes.http_ok(f"{client}/health"),
    )


def api_server(files: Files, kubectl: Kubectl) -> Daemon:
    serving, to_kubelet = files.pair("apiserver"), files.pair("apiserver-kubelet-client")
    authority = files.authority.pair.cert
    return Daemon(
        name="kube-apiserver",
        argv=[
            gobuild.binary(tools.KUBERNETES, "kube-apiserver"),
            f"--etcd-servers=http://{LOOPBACK}:{settings.ETCD_PORT}",
            # Pods reach it at the advertised address through the kubernetes Service, so it must not be loopback.
            f"--bind-address={settings.NODE_ADDRESS}",
            f"--advertise-address={settings.NODE_ADDRESS}",
            f"--secure-port={settings.API_PORT}",
            f"--service-cluster-ip-range={settings.SERVICE_CIDR}",
            f"--client-ca-file={authority}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            f"--kubelet-client-certificate={to_kubelet.cert}",
            f"--kubelet-client-key={to_kubelet.key}",
            # By name is the default, and nobody resolves the node's name: `kubectl logs` would fail.
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={files.pair('service-account').key.with_suffix('.pub')}",
            f"--service-account-signing-key-file={files.pair('service-account').key}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            # The defaults of 400 and 200 would hide the operator's own speed in scale tests.
            "--max-requests-inflight=2000",
            "--max-mutating-requests-inflight=1000",
        ],
        ready=kubectl.ready,
    )


def controller_manager(files: Files) -> Daemon:
    authority = files.authority.pair
    port = settings.CONTROLLER_MANAGER_PORT
    return Daemon(
        name="kube-controller-manager",
        argv=[
            gobuild.binary(tools.KUBERNETES, "kube-controller-manager"),
            *_client(files, "controller-manager"),
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--root-ca-file={authority.cert}",
            f"--service-account-private-key-file={files.pair('service-account').key}",
            f"--cluster-signing-cert-file={authority.cert}",
            f"--cluster-signing-key-file={authority.key}",
            "--use-service-account-credentials=true",
        ],
        ready=lambda: probes.listens(LOOPBACK, port),
    )


def scheduler(files: Files) -> Daemon:
    port = settings.SCHEDULER_PORT
    return Daemon(
        name="kube-scheduler",
        argv=[
            gobuild.binary(tools.KUBERNETES, "kube-scheduler"),
            *_client(files, "scheduler"),
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
        ],
        ready=lambda: probes.listens(LOOPBACK, port),
    )


def _client(files: Files, user: str) -> list[str]:
    """There is one of each, so no election; and enough requests a second that the operator is the slower one."""
    path = files.kubeconfig(user)
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--leader-elect=false",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
    ]
