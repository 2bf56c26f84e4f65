"""The pure parts of the local cluster: what counts as ours, and what is said where it cannot run."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from devcluster import debian, shell
from devcluster.console import ClusterError
from devcluster.local import controlplane, dns, leftovers, node
from devcluster.local.provider import LocalProvider
from devcluster.pki import Authority

MARKS = ("tuningfork-dev", "KUBE-", "CNI-")


@pytest.mark.parametrize(
    ("command_line", "ours"),
    [
        pytest.param(["/c/etcd", "--data-dir=/var/lib/tuningfork-cluster/etcd"], True, id="our etcd"),
        pytest.param(
            ["/usr/bin/containerd-shim-runc-v2", "-address", "/run/tuningfork-cluster/containerd.sock"],
            True,
            id="a shim",
        ),
        pytest.param(["/usr/bin/etcd", "--data-dir=/var/lib/etcd"], False, id="somebody else's etcd"),
        pytest.param(["tail", "-f", "/var/lib/tuningfork-cluster/logs/etcd.log"], False, id="somebody reads a log"),
        pytest.param([""], False, id="a kernel thread"),
        pytest.param([], False, id="it ended meanwhile"),
    ],
)
def test_only_our_own_processes_are_ended(command_line: list[str], ours: bool) -> None:
    assert leftovers.is_ours(command_line) is ours


def test_only_marked_rules_are_removed() -> None:
    dump = (
        "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:DOCKER - [0:0]\n"
        "-A PREROUTING -j KUBE-SERVICES\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n"
        '-A POSTROUTING -s 10.244.0.0/24 -m comment --comment "tuningfork-dev" -j MASQUERADE\nCOMMIT\n'
    )
    assert leftovers.without_marked(dump, MARKS) == (
        "*nat\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\nCOMMIT\n"
    )


def test_somebody_elses_kubelet_is_seen() -> None:
    with subprocess.Popen(["k0s", "60"], executable="/bin/sleep") as theirs:
        eventually_named(theirs.pid)
        assert theirs.pid in leftovers.others("k0s")
        theirs.kill()
    assert theirs.pid not in leftovers.others("k0s")


def eventually_named(pid: int) -> None:
    """Between fork and exec a process still has our own command line."""
    deadline = time.monotonic() + 5
    while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"k0s"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cluster_of_root_is_left_to_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(LocalProvider, "state", tmp_path)
    with pytest.raises(ClusterError, match="started by root"):
        LocalProvider().find()


def test_without_root_and_docker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(LocalProvider, "state", tmp_path / "nothing")
    with pytest.raises(ClusterError) as caught:
        LocalProvider().up()
    assert "Install and start Docker" in str(caught.value)
    assert "TUNINGFORK_KUBECONFIG" in str(caught.value)


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="no-such-runc") as caught:
        debian.ensure({"no-such-runc": "runc", "sh": "dash"})
    assert "sudo apt-get install runc`" in str(caught.value)


def test_configurations_hold_what_was_found_necessary() -> None:
    files = controlplane.Files(Path("/state"))
    kubelet = node.kubelet_config(files)
    assert kubelet["failCgroupV1"] is False
    assert kubelet["cgroupRoot"] == "/tuningfork"
    assert node.kube_proxy_config(files, bridge_is_filtered=False)["iptables"]["masqueradeAll"] is True
    service = next(item for item in dns.objects() if item["kind"] == "Service")
    assert [service["spec"]["clusterIP"]] == kubelet["clusterDNS"]


@pytest.mark.skipif(debian.find("openssl") is None, reason="no openssl on this machine")
def test_certificates_are_signed_and_name_user_group_and_addresses(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    authority.create()
    pair = authority.issue("kubelet", "system:node:dev", "system:nodes", "IP:10.245.0.1,DNS:kubernetes")
    shell.run(["openssl", "verify", "-CAfile", authority.pair.cert, pair.cert])
    text = shell.run(["openssl", "x509", "-in", pair.cert, "-noout", "-text"])
    assert "O = system:nodes, CN = system:node:dev" in text
    assert "DNS:kubernetes" in text
    assert "IP Address:10.245.0.1" in text
    assert pair.key.stat().st_mode & 0o077 == 0
