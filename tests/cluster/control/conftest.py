"""A namespace, a proxy in front of the API server, and toy operators that go through it."""

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devcluster.kube import Kubectl
from support.api_server import ROOT, cluster_kubectl, namespace
from support.cluster import read_cluster
from support.operators import OperatorProcess
from support.proxy import FaultProxy
from support.toy_world import World
from tuningfork.providers.kubernetes import Kubernetes, connect


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    kubectl = cluster_kubectl()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=30s")
    return kubectl


@pytest.fixture
def ns(kubectl: Kubectl) -> Iterator[str]:
    with namespace(kubectl, "runtime") as name:
        yield name


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(read_cluster()) as proxy:
        yield proxy


@pytest.fixture
async def kube(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kubernetes]:
    """Straight to the API server."""
    monkeypatch.setenv("KUBECONFIG", str(read_cluster().kubeconfig))
    kube = await connect()
    yield kube
    await kube.close()


Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(proxy: FaultProxy, ns: str, tmp_path: Path) -> Iterator[Start]:
    """Starts operators, each on its own address; all are ended with the test."""
    kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig")
    network = os.getpid() % 200 + 20  # several test runs share this machine
    hosts = itertools.count(2)
    with ExitStack() as running:

        def start(name: str, **more: Any) -> OperatorProcess:
            address = f"127.{network}.0.{next(hosts)}"
            operator = OperatorProcess(name, address, ns, kubeconfig, tmp_path / f"{name}.log", **more)
            return running.enter_context(operator).wait_ready()

        yield start


@pytest.fixture
def world(kube: Kubernetes, ns: str) -> World:
    return World(kube, ns)
