"""What the local cluster takes from the operating system, and nothing that is already there.

Programs are looked up, not packages: on a machine without apt-get they may come from anywhere, and the sentence says
which are missing. Debian would start containerd at once; policy-rc.d is its own way to say no, and one
that is already there (in a container image, say) is left alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster import shell
from devcluster.console import ClusterError, step

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_DIRS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
POLICY = Path("/usr/sbin/policy-rc.d")

LOCAL_NODE: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "cni:bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "iptables-restore": "iptables",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "socat": "socat",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "mount": "mount",
    "sysctl": "procps",
    "openssl": "openssl",
}


def program(name: str) -> str:
    """The path of a program that `ensure` has seen to."""
    found = find(name)
    if found is None:
        raise ClusterError(f"`{name}` is not on this machine. Install it and try again.")
    return found


def find(name: str) -> str | None:
    """Also where PATH of an ordinary user does not lead: iptables lives in /usr/sbin."""
    if name.startswith("cni:"):
        plugins = (directory / name.removeprefix("cni:") for directory in CNI_DIRS)
        return next((str(path) for path in plugins if path.exists()), None)
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


def ensure(needed: Mapping[str, str]) -> None:
    missing = {name: package for name, package in needed.items() if find(name) is None}
    if not missing:
        return
    packages = sorted(set(missing.values()))
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(
            f"Not found on this machine: {', '.join(missing)}. Install them (on Debian and Ubuntu: "
            f"`sudo apt-get install {' '.join(packages)}`) and try again."
        )
    with step(f"installing {', '.join(packages)} with apt-get"), _services_stay_down():
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        shell.attempt(["apt-get", "update", "-qq"], env=env)  # one source that fails is no reason not to try
        shell.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=env)
    still = [name for name in missing if find(name) is None]
    if still:
        raise ClusterError(f"apt-get installed {', '.join(packages)}, yet these are not there: {', '.join(still)}.")


@contextmanager
def _services_stay_down() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text(
        "#!/bin/sh\n# Temporary, from TuningFork's hack/cluster: install without starting services.\nexit 101\n"
    )
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
