"""Removes everything that a local cluster leaves on the machine, however it ended.

It relies on what can be seen, not on what `up` remembers: processes by their command line, containers by their cgroup,
mounts by their path, rules by their chain. So it works after a `kill -9` of everything, with stale pid files, and after a
start that failed half-way; and it is what `up` runs before a fresh start.

The order matters. Whoever would recreate things goes first, then containers, then what they held; and files are deleted
only when no mount is left below them: a pod's volume may be somebody's own folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from devcluster import debian, settings, shell
from devcluster.console import ClusterError
from devcluster.daemons import Daemons, terminate
from devcluster.local import network
from devcluster.local.node import cgroup_folders

OURS = (str(settings.LOCAL_STATE), str(settings.LOCAL_RUN))
PROGRAMS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    *("containerd", "containerd-shim-runc-v2", "coredns", "versitygw", "prometheus", "kwok"),
)
"""Only these are ended, and only with one of our folders on their command line: `tail -f` of a log is not ours."""

CONTAINERD_FIXED = Path("/run/containerd")
"""containerd puts its shims' sockets there whatever its configuration says."""
NETWORK_NAMESPACES = Path("/run/netns")
CNI_CACHE = Path("/var/lib/cni")
CONTAINER_LOG_LINKS = Path("/var/log/containers")
"""The kubelet links each log there; unlike its other folders this one is fixed."""

KILL_SECONDS = 10.0


def remove() -> None:
    """Safe to call when there is nothing."""
    _end_processes()
    _empty_cgroups()
    _unmount()
    _remove_network()
    network.restore_parameters(settings.LOCAL_STATE / "sysctl.json")
    _remove_files()


def _end_processes() -> None:
    daemons = Daemons(settings.LOCAL_STATE)
    recorded = {pid for name in daemons.names() if (pid := daemons.pid(name)) is not None}
    terminate(recorded | set(_processes()))
    # A shim that was told to end may have restarted nothing, but one that appeared meanwhile is still there.
    terminate(_processes())


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_ours(_command_line(entry)):
            yield int(entry.name)


def is_ours(command_line: list[str]) -> bool:
    if not command_line or Path(command_line[0]).name not in PROGRAMS:
        return False
    return any(folder in argument for argument in command_line for folder in OURS)


def _command_line(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _empty_cgroups() -> None:
    """Kill every process of every pod, then remove the groups, the innermost first."""
    deadline = time.monotonic() + KILL_SECONDS
    while pids := {pid for folder in cgroup_folders() for pid in _members(folder)}:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise ClusterError(f"These processes of pods do not end: {sorted(pids)}.")
        time.sleep(0.05)
    for folder in cgroup_folders():
        for group in _groups(folder):
            _remove_group(group)


def _members(folder: Path) -> set[int]:
    members = set()
    for group in _groups(folder):
        try:
            members |= {int(line) for line in (group / "cgroup.procs").read_text().split()}
        except OSError:
            continue  # the group went away meanwhile
    return members - {0}


def _groups(folder: Path) -> list[Path]:
    """The innermost first."""
    return [Path(path) for path, _, _ in os.walk(folder, topdown=False)]


def _remove_group(group: Path) -> None:
    """For a moment after its last process ended a group still counts as busy."""
    for _ in range(50):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


def _unmount() -> None:
    for _ in range(3):  # a mount may hide another at the same place
        for path in reversed(_mounts_below(OURS)):
            shell.attempt([debian.program("umount"), "--lazy", path])
    if left := _mounts_below(OURS):
        raise ClusterError(f"Still mounted, so nothing is deleted: {', '.join(left)}. Unmount by hand and try again.")


def _mounts_below(folders: Iterable[str]) -> list[str]:
    """In the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)]


def _remove_network() -> None:
    if not _other_containerd_runs():
        for namespace in NETWORK_NAMESPACES.glob("cni-*"):
            shell.attempt([debian.program("umount"), "--lazy", namespace])
            namespace.unlink(missing_ok=True)
        _rmdir(NETWORK_NAMESPACES)
    if ip := debian.find("ip"):
        links = json.loads(shell.attempt([ip, "-json", "link", "show", "master", settings.BRIDGE]).stdout or "[]")
        for link in links:
            shell.attempt([ip, "link", "delete", link["ifname"]])
        shell.attempt([ip, "link", "delete", settings.BRIDGE])
    for prefix in ("iptables", "ip6tables"):
        if debian.find(f"{prefix}-save") and debian.find(f"{prefix}-restore"):
            _remove_rules(prefix)


def _remove_rules(prefix: str) -> None:
    before = shell.attempt([debian.program(f"{prefix}-save")]).stdout
    after = without_our_rules(before)
    if after != before:
        shell.run([debian.program(f"{prefix}-restore"), "--wait=5"], stdin=after)


def without_our_rules(dump: str) -> str:
    """An iptables-save dump without the chains and rules of kube-proxy, kubelet, CNI's portmap and ourselves."""
    marks = ("KUBE-", "CNI-", network.COMMENT)
    return "".join(line for line in dump.splitlines(keepends=True) if not any(mark in line for mark in marks))


def _remove_files() -> None:
    for link in CONTAINER_LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(settings.LOCAL_STATE):
            link.unlink(missing_ok=True)
    _rmdir(CONTAINER_LOG_LINKS)
    for cached in CNI_CACHE.glob(f"results/{settings.CLUSTER_NAME}-*"):
        cached.unlink(missing_ok=True)
    for folder in (CNI_CACHE / "results", CNI_CACHE):
        _rmdir(folder)
    if not _other_containerd_runs():
        shutil.rmtree(CONTAINERD_FIXED / "s", ignore_errors=True)
        _rmdir(CONTAINERD_FIXED)
    for folder in (settings.LOCAL_RUN, settings.LOCAL_STATE):
        if folder.exists():
            shutil.rmtree(folder)


def _other_containerd_runs() -> bool:
    lines = (_command_line(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return any(line and Path(line[0]).name in ("containerd", "dockerd", "crio") and not is_ours(line) for line in lines)


def _rmdir(folder: Path) -> None:
    """Only when it is empty, so only when nobody else uses it."""
    try:
        folder.rmdir()
    except OSError:
        return
