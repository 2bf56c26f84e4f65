"""CoreDNS, as a process of the host behind the Service that pods expect.

A process, because it needs no image and answers before the first pod exists. The Service has no selector; its endpoint is
the node's address.
"""

from __future__ import annotations

from devcluster import gobuild, probes, settings, tools
from devcluster.daemons import Daemon
from devcluster.kube import Json
from devcluster.local.controlplane import Files

NAME = "coredns"

# No cache for the cluster's own names: a test that waits for a pod's address should see it at once.
COREFILE = """\
.:{port} {{
    bind {address}
    errors
    ready {address}:{ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    forward . /etc/resolv.conf
    cache 30 {{
        disable success cluster.local
        disable denial cluster.local
    }}
}}
"""


def daemon(files: Files) -> Daemon:
    corefile = files.state / "Corefile"
    corefile.write_text(
        COREFILE.format(
            port=settings.DNS_PORT,
            address=settings.NODE_ADDRESS,
            ready=settings.DNS_READY_PORT,
            kubeconfig=files.kubeconfig("coredns"),
        )
    )
    return Daemon(
        name=NAME,
        argv=[gobuild.binary(tools.COREDNS), "-conf", corefile],
        ready=lambda: probes.http_ok(f"http://{settings.NODE_ADDRESS}:{settings.DNS_READY_PORT}/ready"),
    )


def objects() -> tuple[Json, ...]:
    """The Service and its endpoint, and what CoreDNS may read."""
    meta = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    protocols = (("dns", "UDP"), ("dns-tcp", "TCP"))
    service_ports = [{"name": name, "protocol": protocol, "port": 53} for name, protocol in protocols]
    ports = [{"name": name, "protocol": protocol, "port": settings.DNS_PORT} for name, protocol in protocols]
    rbac = "rbac.authorization.k8s.io"
    role = {"name": "system:coredns"}
    rules = [
        {
            "apiGroups": [""],
            "resources": ["endpoints", "services", "pods", "namespaces"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    ]
    return (
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": role, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": role,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", **role},
            "subjects": [{"apiGroup": rbac, "kind": "User", **role}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": settings.DNS_SERVICE_ADDRESS, "ports": service_ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "name": "kube-dns-host", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [settings.NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )
