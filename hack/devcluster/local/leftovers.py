"""Removes everything that a local cluster leaves on the machine, however it ended.

It relies on what can be seen, not on what `up` remembers: processes by their command line, containers by their cgroup,
mounts by their path, rules by their chain. So it works after a `kill -9` of everything, with stale pid files, and after a
start that failed half-way; and it is what `up` runs before a fresh start.

The order matters. Whoever would recreate things goes first, then containers, then what they held; and files are deleted
only when no mount is left below them: a pod's volume may be somebody's own folder.

What stays: Debian's packages, the cache of binaries, and (where iptables writes to nftables) iptables' tables, empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
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
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""The kubelet links each log in the one and listens in the other; unlike its other folders these are fixed."""

MOUNT_NOTES = Path("/run/mount")
"""umount makes it, and leaves it empty."""

CONTAINER_ENGINES = ("containerd", "dockerd", "crio")
KUBELETS = ("kubelet", "k3s", "k0s", "rke2")
"""Where somebody else's runs, what cannot be told from theirs (namespaces, caches, chains) is left alone."""

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


def others(*programs: str) -> list[int]:
    """Running programs of that name which are not ours. In a network of their own (a container) they do not count."""
    return [pid for pid, line in _command_lines() if _is_other(line, programs) and _shares_our_network(pid)]


def _is_other(line: list[str], programs: Iterable[str]) -> bool:
    return bool(line) and Path(line[0]).name in programs and not is_ours(line)


def _shares_our_network(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    except OSError:
        return False


def _processes() -> Iterator[int]:
    return (pid for pid, line in _command_lines() if is_ours(line))


def is_ours(command_line: list[str]) -> bool:
    if not command_line or Path(command_line[0]).name not in PROGRAMS:
        return False
    return any(folder in argument for argument in command_line for folder in OURS)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            yield int(entry.name), line.split("\0")


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
    if not others(*CONTAINER_ENGINES):
        for namespace in NETWORK_NAMESPACES.glob("cni-*"):
            shell.attempt([debian.program("umount"), "--lazy", namespace])
            namespace.unlink(missing_ok=True)
        _rmdir(NETWORK_NAMESPACES)
    if ip := debian.find("ip"):
        links = json.loads(shell.attempt([ip, "-json", "link", "show", "master", settings.BRIDGE]).stdout or "[]")
        for link in links:
            shell.attempt([ip, "link", "delete", link["ifname"]])
        shell.attempt([ip, "link", "delete", settings.BRIDGE])
    shared = bool(others(*KUBELETS))
    for prefix in ("iptables", "ip6tables"):
        if debian.find(f"{prefix}-save") and debian.find(f"{prefix}-restore"):
            _remove_rules(prefix, (network.COMMENT,) if shared else (network.COMMENT, "KUBE-", "CNI-"))


def _remove_rules(prefix: str, marks: Sequence[str]) -> None:
    before = shell.attempt([debian.program(f"{prefix}-save")]).stdout
    after = without_marked(before, marks)
    if after != before:
        shell.run([debian.program(f"{prefix}-restore"), "--wait=5"], stdin=after)


def without_marked(dump: str, marks: Sequence[str]) -> str:
    """An iptables-save dump without chains and rules that bear a mark: KUBE- kube-proxy's and kubelet's, CNI- portmap's."""
    return "".join(line for line in dump.splitlines(keepends=True) if not any(mark in line for mark in marks))


def _remove_files() -> None:
    for link in CONTAINER_LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(settings.LOCAL_STATE):
            link.unlink(missing_ok=True)
    _rmdir(CONTAINER_LOG_LINKS)
    if not others(*KUBELETS):
        for name in ("kubelet.sock", "kubelet_internal_checkpoint"):
            (DEVICE_PLUGINS / name).unlink(missing_ok=True)
        _rmdir(DEVICE_PLUGINS, DEVICE_PLUGINS.parent)
    if not others(*CONTAINER_ENGINES):
        for pattern in (f"{settings.CLUSTER_NAME}-*", "cni-loopback-*"):
            for cached in (CNI_CACHE / "results").glob(pattern):
                cached.unlink(missing_ok=True)
        _rmdir(CNI_CACHE / "results", CNI_CACHE)
        shutil.rmtree(CONTAINERD_FIXED / "s", ignore_errors=True)
        _rmdir(CONTAINERD_FIXED, MOUNT_NOTES)
    for folder in (settings.LOCAL_RUN, settings.LOCAL_STATE):
        if folder.exists():
            shutil.rmtree(folder)


def _rmdir(*folders: Path) -> None:
    """Only those that are empty, so only when nobody else uses them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
