"""The node's address, the pods' network, and the few kernel parameters they need.

The bridge is made here and not left to the CNI plugin, because the node's own address lies on it and must exist before
the API server does. It is a second address, outside the pods' range, that no other machine has a route to.
"""

from __future__ import annotations

import json
from pathlib import Path

from devcluster import debian, settings, shell
from devcluster.local.controlplane import Files

COMMENT = "tuningfork-dev"
"""On our own rules; leftovers.py finds them by that."""

RULES = (
    # Pods speak to the outside with the machine's address.
    ("-t", "nat", "-A", "POSTROUTING", "-s", settings.POD_CIDR, "!", "-d", settings.POD_CIDR, "-j", "MASQUERADE"),
    # A firewall of the machine (ufw, or what Docker leaves) may forward and accept nothing by default.
    ("-I", "FORWARD", "-i", settings.BRIDGE, "-j", "ACCEPT"),
    ("-I", "FORWARD", "-o", settings.BRIDGE, "-j", "ACCEPT"),
    ("-I", "INPUT", "-i", settings.BRIDGE, "-j", "ACCEPT"),
)

PARAMETERS = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
TOUCHED = (
    *PARAMETERS,
    "net.ipv4.conf.all.route_localnet",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
"""Also what kubelet and kube-proxy set at their start. Written down before, restored by `down`."""


def create(files: Files) -> None:
    _save_parameters(files.state / "sysctl.json")
    for name, value in PARAMETERS.items():
        if _parameter(name).exists():
            _parameter(name).write_text(value)
    ip = debian.program("ip")
    shell.run([ip, "link", "add", settings.BRIDGE, "type", "bridge"])
    prefix = settings.POD_CIDR.partition("/")[2]
    for address in (f"{settings.POD_GATEWAY}/{prefix}", f"{settings.NODE_ADDRESS}/32"):
        shell.run([ip, "address", "add", address, "dev", settings.BRIDGE])
    shell.run([ip, "link", "set", settings.BRIDGE, "up"])
    for rule in RULES:
        shell.run([debian.program("iptables"), "-w", *rule, "-m", "comment", "--comment", COMMENT])
    _write_cni(files.state / "cni")


def bridge_is_filtered() -> bool:
    path = _parameter("net.bridge.bridge-nf-call-iptables")
    return path.exists() and path.read_text().strip() == "1"


def restore_parameters(saved: Path) -> None:
    try:
        values = json.loads(saved.read_text())
    except (FileNotFoundError, ValueError):
        return  # `up` never came that far
    for name, value in values.items():
        path = _parameter(name)
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def _save_parameters(path: Path) -> None:
    values = {name: _parameter(name).read_text().strip() for name in TOUCHED if _parameter(name).exists()}
    path.write_text(json.dumps(values, indent=2))


def _parameter(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def _write_cni(folder: Path) -> None:
    """hostPort works through portmap; masquerading is our own rule, so that a pod leaves no chain behind."""
    folder.mkdir(exist_ok=True)
    leases = settings.LOCAL_RUN / "cni-leases"
    plugins = [
        {
            "type": "bridge",
            "bridge": settings.BRIDGE,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(leases),
                "ranges": [[{"subnet": settings.POD_CIDR, "gateway": settings.POD_GATEWAY}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    network = {"cniVersion": "0.4.0", "name": settings.CLUSTER_NAME, "plugins": plugins}
    (folder / "10-tuningfork.conflist").write_text(json.dumps(network, indent=2))
