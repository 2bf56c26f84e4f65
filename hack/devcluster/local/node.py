"""The node: containerd, kubelet and kube-proxy, with folders, sockets and ports of their own.

Nothing is shared with a containerd or a kubelet that the machine may already have, and all pods live below one cgroup, so
that what is ours can be told from what is not even after everything was killed.
"""

from __future__ import annotations

import json
from pathlib import Path

from devcluster import debian, gobuild, probes, settings, tools
from devcluster.daemons import Daemon
from devcluster.kube import Json
from devcluster.local.controlplane import LOOPBACK, Files

SOCKET = settings.LOCAL_RUN / "containerd.sock"
CGROUP = "tuningfork"
CGROUP_ROOT = Path("/sys/fs/cgroup")

CONTAINERD_CONFIG = """\
version = 2
root = "{state}/containerd"
state = "{run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # A container may be refused a negative score (where this runs in a container itself), and needs none here.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{state}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{run}/runc"
"""


def containerd(files: Files) -> Daemon:
    config = files.state / "containerd.toml"
    config.write_text(
        CONTAINERD_CONFIG.format(
            state=files.state,
            run=settings.LOCAL_RUN,
            socket=SOCKET,
            pause=settings.PAUSE_IMAGE,
            cni_bin=Path(debian.program("cni:bridge")).parent,
        )
    )
    return Daemon(
        name="containerd",
        argv=[debian.program("containerd"), f"--config={config}"],
        ready=lambda: probes.socket_accepts(SOCKET),
    )


def kubelet(files: Files) -> Daemon:
    config = files.state / "kubelet.json"
    config.write_text(json.dumps(kubelet_config(files), indent=2))
    return Daemon(
        name="kubelet",
        argv=[
            gobuild.binary(tools.KUBERNETES, "kubelet"),
            f"--config={config}",
            f"--kubeconfig={files.kubeconfig('kubelet')}",
            f"--root-dir={files.state / 'kubelet'}",
            f"--cert-dir={files.state / 'kubelet-pki'}",
            f"--hostname-override={settings.NODE_NAME}",
            f"--node-ip={settings.NODE_ADDRESS}",
        ],
        ready=lambda: probes.http_ok(f"http://{LOOPBACK}:{settings.KUBELET_HEALTH_PORT}/healthz"),
    )


def kubelet_config(files: Files) -> Json:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.NODE_ADDRESS,
        "port": settings.KUBELET_PORT,
        "healthzBindAddress": LOOPBACK,
        "healthzPort": settings.KUBELET_HEALTH_PORT,
        "authentication": {
            "x509": {"clientCAFile": str(files.authority.pair.cert)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [settings.DNS_SERVICE_ADDRESS],
        "podLogsDir": str(files.state / "pod-logs"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": 200,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        # A developer's disk is often nearly full, and images cannot be pulled again here: never evict for that.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "shutdownGracePeriod": "0s",
    }


def kube_proxy(files: Files, *, bridge_is_filtered: bool) -> Daemon:
    config = files.state / "kube-proxy.json"
    config.write_text(json.dumps(kube_proxy_config(files, bridge_is_filtered=bridge_is_filtered), indent=2))
    return Daemon(
        name="kube-proxy",
        argv=[gobuild.binary(tools.KUBERNETES, "kube-proxy"), f"--config={config}"],
        ready=lambda: probes.http_ok(f"http://{LOOPBACK}:{settings.PROXY_HEALTH_PORT}/healthz"),
    )


def kube_proxy_config(files: Files, *, bridge_is_filtered: bool) -> Json:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(files.kubeconfig("kube-proxy"))},
        "hostnameOverride": settings.NODE_NAME,
        "clusterCIDR": settings.POD_CIDR,
        "healthzBindAddress": f"{LOOPBACK}:{settings.PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"{LOOPBACK}:{settings.PROXY_METRICS_PORT}",
        "nodePortAddresses": [f"{settings.NODE_ADDRESS}/32"],
        # Limits of the whole machine, which are none of a development cluster's business.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        # Frames between two pods of one bridge pass iptables only with br_netfilter. Without it the answer of a Service
        # would go straight to the client, from an address that it never called; so every call comes from the node then.
        "iptables": {"localhostNodePorts": False, "masqueradeAll": not bridge_is_filtered},
    }


def create_cgroup() -> None:
    """The kubelet wants its root to exist, in each hierarchy (version 1) or with its controllers on (version 2)."""
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        controllers = (CGROUP_ROOT / "cgroup.controllers").read_text().split()
        enable = " ".join(f"+{name}" for name in controllers)
        (CGROUP_ROOT / "cgroup.subtree_control").write_text(enable)
        (CGROUP_ROOT / CGROUP).mkdir(exist_ok=True)
        (CGROUP_ROOT / CGROUP / "cgroup.subtree_control").write_text(enable)
        return
    for folder in cgroup_folders():
        folder.mkdir(exist_ok=True)
        _inherit_cpuset(folder)


def cgroup_folders() -> list[Path]:
    """Ours in every hierarchy. Hierarchies may be links to one another (cpu -> cpu,cpuacct)."""
    if (CGROUP_ROOT / "cgroup.controllers").exists():
        return [CGROUP_ROOT / CGROUP]
    hierarchies = {path.resolve() for path in CGROUP_ROOT.iterdir() if (path / "cgroup.procs").exists()}
    return [hierarchy / CGROUP for hierarchy in sorted(hierarchies)]


def _inherit_cpuset(folder: Path) -> None:
    """A new cpuset of version 1 is empty, and a process cannot enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder / name).exists() and not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())
