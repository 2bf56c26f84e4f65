"""The programs that are built from Go modules: a catalogue, no code.

Where a module's go.mod has `replace` lines `go install module@version` refuses it, so such a tool gets a go.mod of its
own, which repeats them. `minutes` is what the first build took on two cores; it is only shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from devcluster import settings

_STAGING = [
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cli-runtime",
    "client-go",
    "cloud-provider",
    "cluster-bootstrap",
    "code-generator",
    "component-base",
    "component-helpers",
    "controller-manager",
    "cri-api",
    "cri-client",
    "csi-translation-lib",
    "dynamic-resource-allocation",
    "endpointslice",
    "externaljwt",
    "kms",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics",
    "mount-utils",
    "pod-security-admission",
    "sample-apiserver",
    "sample-cli-plugin",
    "sample-controller",
]
"""Kubernetes' own libraries: k8s.io/kubernetes requires them at v0.0.0, and they are published as v0.minor.patch."""


@dataclass(frozen=True)
class Tool:
    """One build. Its binaries are named after the last part of each package."""

    name: str
    version: str
    module: str
    packages: tuple[str, ...]
    minutes: float
    title: str
    replace: tuple[str, ...] = ()
    own_go_mod: bool = False
    ldflags: str = "-s -w"
    tags: str = ""

    @property
    def binaries(self) -> tuple[str, ...]:
        return tuple(_last_part(package) for package in self.packages)


def _last_part(package: str) -> str:
    """`go.etcd.io/etcd/server/v3` would make a binary called `server`; it is built as `etcd`."""
    return "etcd" if package == "go.etcd.io/etcd/server/v3" else package.rsplit("/", 1)[1]


def _kubernetes(name: str, commands: tuple[str, ...], minutes: float, title: str) -> Tool:
    major, minor, _ = settings.KUBERNETES_VERSION.removeprefix("v").split(".")
    library_version = settings.KUBERNETES_VERSION.replace("v1.", "v0.")
    # Without the stamp every component calls itself v0.0.0 and the version skew checks fail.
    stamps = {"gitVersion": settings.KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return Tool(
        name=name,
        version=settings.KUBERNETES_VERSION,
        module="k8s.io/kubernetes",
        packages=tuple(f"k8s.io/kubernetes/cmd/{command}" for command in commands),
        minutes=minutes,
        title=title,
        own_go_mod=True,
        replace=tuple(f"k8s.io/{library} => k8s.io/{library} {library_version}" for library in _STAGING),
        ldflags="-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items()),
    )


def _prometheus(command: str, minutes: float, title: str) -> Tool:
    return Tool(
        name=command,
        version=settings.PROMETHEUS_VERSION,
        module="github.com/prometheus/prometheus",
        packages=(f"github.com/prometheus/prometheus/cmd/{command}",),
        minutes=minutes,
        title=title,
        own_go_mod=True,
        replace=("cloud.google.com/go => cloud.google.com/go v0.123.0",),
        # Without its web page, which is no Go; and of all ways to find targets only the one that is used.
        tags="remove_all_sd,enable_kubernetes_sd",
    )


ETCD = Tool(
    "etcd",
    settings.ETCD_VERSION,
    "go.etcd.io/etcd/server/v3",
    ("go.etcd.io/etcd/server/v3",),
    0.5,
    "etcd",
    own_go_mod=True,
)
KUBERNETES = _kubernetes(
    "kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    5.5,
    "Kubernetes",
)
KUBECTL = _kubernetes("kubectl", ("kubectl",), 2, "kubectl")
"""On its own for kind and for a cluster of one's own, which need nothing else of Kubernetes."""
VERSITYGW = Tool(
    "versitygw",
    settings.VERSITYGW_VERSION,
    "github.com/versity/versitygw",
    ("github.com/versity/versitygw/cmd/versitygw",),
    2,
    "the S3 server versitygw",
)
COREDNS = Tool(
    "coredns", settings.COREDNS_VERSION, "github.com/coredns/coredns", ("github.com/coredns/coredns",), 2, "CoreDNS"
)
PROMETHEUS = _prometheus("prometheus", 2, "Prometheus")
PROMTOOL = _prometheus("promtool", 1, "promtool")
"""Checks the chart's rules and the dashboard's queries; apart from Prometheus, because linting needs no cluster."""
HELM = Tool("helm", settings.HELM_VERSION, "helm.sh/helm/v4", ("helm.sh/helm/v4/cmd/helm",), 2, "Helm")
KWOK = Tool("kwok", settings.KWOK_VERSION, "sigs.k8s.io/kwok", ("sigs.k8s.io/kwok/cmd/kwok",), 1.5, "kwok")
KIND = Tool("kind", settings.KIND_VERSION, "sigs.k8s.io/kind", ("sigs.k8s.io/kind",), 0.5, "kind")

ALL = (ETCD, KUBERNETES, VERSITYGW, COREDNS, PROMETHEUS, HELM, KWOK)
"""What `hack/cluster build` makes, in the order in which `up` needs it; kwok last, because only `nodes` does."""
BY_NAME = {tool.name: tool for tool in (*ALL, KUBECTL, PROMTOOL, KIND)}
