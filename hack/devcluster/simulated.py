"""Simulated nodes with GPUs: kwok keeps them Ready and plays their kubelet, and a Job's pod there completes at once.

Each carries the taint `kwok.x-k8s.io/node=fake:NoSchedule`, so that no real pod lands where nothing would run it: what
should be simulated has to tolerate it. The machine's own node can be given GPU capacity, too (`nodes --real`): pods
really run there, and find no GPU. The kubelet keeps capacity that it did not set itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from devcluster import gobuild, gpus, probes, settings, tools
from devcluster.cluster import Cluster
from devcluster.console import ClusterError, say, step
from devcluster.daemons import Daemon, Daemons
from devcluster.kube import Json

NAME = "kwok"
FAKE = "kwok.x-k8s.io/node"
GPU_LABEL = "tuningfork.dev/simulated-gpu"
"""Its value is the accelerator's name. On simulated nodes and on a real node with simulated capacity."""
CAPACITY = {"cpu": "96", "memory": "1Ti", "ephemeral-storage": "4Ti", "pods": "256"}


READY_SECONDS = 20.0


@dataclass(frozen=True)
class Request:
    """`nvidia-a100-80gb:8`."""

    accelerator: str
    count: int

    @classmethod
    def parse(cls, text: str) -> Request:
        accelerator, _, count = text.partition(":")
        if accelerator not in gpus.CATALOGUE:
            raise ClusterError(f"`{accelerator}` is not a GPU that can be simulated: {', '.join(gpus.CATALOGUE)}.")
        if not count.isdigit() or not 1 <= int(count) <= 64:
            raise ClusterError(f"`{text}`: after the GPU's name comes how many a node has, as in {accelerator}:8.")
        return cls(accelerator, int(count))

    def labels(self) -> dict[str, str]:
        return {GPU_LABEL: self.accelerator, **gpus.CATALOGUE[self.accelerator].labels(self.count)}


def node(index: int, request: Request) -> Json:
    name = f"sim-{request.accelerator}-{index}"
    resources = {**CAPACITY, gpus.RESOURCE: str(request.count)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {FAKE: "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "type": "kwok",
                **request.labels(),
            },
        },
        "spec": {"taints": [{"key": FAKE, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": resources, "allocatable": resources},
    }


def plan(existing: Iterable[Json], number: int, request: Request) -> tuple[list[Json], list[str]]:
    """Nodes to create and names to delete, so that exactly `number` such nodes exist. Other GPUs' nodes stay."""
    wanted = {item["metadata"]["name"]: item for item in (node(index, request) for index in range(number))}
    same, delete = set(), []
    for present in existing:
        name = present["metadata"]["name"]
        if present["metadata"]["labels"].get(GPU_LABEL) != request.accelerator:
            continue
        if name in wanted and present["status"]["capacity"].get(gpus.RESOURCE) == str(request.count):
            same.add(name)
        else:
            delete.append(name)
    return [item for name, item in wanted.items() if name not in same], delete


def set_nodes(cluster: Cluster, daemons: Daemons, number: int, request: Request) -> None:
    existing = cluster.kubectl.get("nodes", "--selector=type=kwok")["items"]
    create, delete = plan(existing, number, request)
    if number:
        daemons.ensure(kwok(cluster), READY_SECONDS)
    with step(f"simulated nodes with {request.count} x {request.accelerator}: {number}"):
        if delete:
            cluster.kubectl("delete", "node", *delete)
        if create:
            cluster.kubectl.create(*create)
        if number:
            ready = ("wait", "node", f"--selector=type=kwok,{GPU_LABEL}={request.accelerator}", "--for=condition=Ready")
            cluster.kubectl(*ready, "--timeout=60s")


def revive(cluster: Cluster, daemons: Daemons) -> None:
    """kwok was started by `nodes`, so `up` brings back only one that died."""
    if NAME in daemons.names() and daemons.pid(NAME) is None:
        with step("starting kwok again"):
            daemons.ensure(kwok(cluster), READY_SECONDS)


def remove_all(cluster: Cluster, daemons: Daemons) -> None:
    cluster.kubectl("delete", "node", "--selector=type=kwok")
    daemons.stop([NAME])
    say("  no simulated nodes")


def set_real_capacity(cluster: Cluster, request: Request | None) -> None:
    """Give every real node simulated GPUs, or take them away again (None)."""
    names = cluster.kubectl("get", "nodes", "--selector=type!=kwok", "-o", "name").split()
    labels = request.labels() if request else dict.fromkeys(_any_labels())
    amount = str(request.count) if request else None
    resources = {gpus.RESOURCE: amount}
    for name in names:
        _patch(cluster, name, {"metadata": {"labels": labels}})
        _patch(cluster, name, {"status": {"capacity": resources, "allocatable": resources}}, "--subresource=status")
    say(
        f"  {', '.join(names)}: {request.count} x {request.accelerator}"
        if request
        else f"  {', '.join(names)}: no GPUs"
    )


def _any_labels() -> list[str]:
    return [GPU_LABEL, *next(iter(gpus.CATALOGUE.values())).labels(1)]


def _patch(cluster: Cluster, name: str, change: Json, *options: str) -> None:
    cluster.kubectl("patch", name, "--type=merge", f"--patch={json.dumps(change)}", *options)


def kwok(cluster: Cluster) -> Daemon:
    address = f"127.0.0.1:{settings.KWOK_PORT}"
    return Daemon(
        name=NAME,
        argv=[
            gobuild.binary(tools.KWOK),
            f"--kubeconfig={cluster.kubectl.kubeconfig}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={FAKE}=fake",
            f"--server-address={address}",
        ],
        ready=lambda: probes.http_ok(f"http://{address}/readyz"),
    )
