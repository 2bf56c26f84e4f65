"""A Rollout's children on the real API server: accepted as they are, restricted, and unchanged by a second look."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.kube import Kubectl
from support.api_server import ROOT, cluster_kubectl, namespace
from support.rollout_world import SETTINGS, World
from tuningfork.api.settings import PodFragment, Settings
from tuningfork.control.compare import needs_apply
from tuningfork.control.store import trimmed
from tuningfork.planning.plan import Manifest

pytestmark = pytest.mark.cluster

NOWHERE = PodFragment(node_selector={"tuningfork.dev/nowhere": "true"})
"""Pods are made and never run: there are no images here."""


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    kubectl = cluster_kubectl()
    kubectl.apply(
        json.loads(kubectl("create", "--dry-run=client", "-o", "json", "-f", str(ROOT / "crds/rollouts.yaml")))
    )
    return kubectl


@pytest.fixture(scope="module")
def place(kubectl: Kubectl) -> Iterator[str]:
    with namespace(kubectl, "rollout", **{"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield name


@pytest.fixture
def children(kubectl: Kubectl, place: str, monkeypatch: pytest.MonkeyPatch) -> list[Manifest]:
    """The first plan of a Rollout that exists in the cluster."""
    monkeypatch.setattr("support.rollout_world.SETTINGS", _settings())
    world = World()
    rollout = {"apiVersion": "tuningfork.dev/v1alpha1", "kind": "Rollout", "spec": world.spec}
    kubectl.apply(rollout | {"metadata": {"name": "support", "namespace": place}})
    world.metadata = kubectl.get("rollouts.tuningfork.dev", "support", "-n", place)["metadata"]
    return list(world.reconcile().apply)


def _settings() -> Settings:
    return SETTINGS.model_copy(
        update={"pods": NOWHERE, "engine_resources": {"requests": {"cpu": "1", "memory": "1024Mi"}}}
    )


def apply(kubectl: Kubectl, child: Manifest, *arguments: str) -> Any:
    options = ("--server-side", "--force-conflicts", "--field-manager=tuningfork", "-o", "json", *arguments)
    return json.loads(kubectl("apply", *options, "-f", "-", stdin=json.dumps(child)))


def test_a_server_dry_run_accepts_every_child(kubectl: Kubectl, children: list[Manifest]) -> None:
    assert len(children) == 7
    for child in children:
        assert apply(kubectl, child, "--dry-run=server", "--validate=strict")["kind"] == child["kind"]


def test_after_an_apply_no_child_differs(kubectl: Kubectl, children: list[Manifest], place: str) -> None:
    for child in children:
        apply(kubectl, child)
    for child in children:
        kind, name = child["kind"], child["metadata"]["name"]
        live = json.loads(kubectl("get", kind, name, "-n", place, "-o", "json", "--show-managed-fields"))
        assert not needs_apply(child, trimmed(live)), f"{kind} {name}"


def test_a_restricted_namespace_admits_the_pods(kubectl: Kubectl, children: list[Manifest], place: str) -> None:
    """Deployments are only warned about; the pods themselves are what must be admitted."""
    apply(kubectl, next(child for child in children if child["kind"] == "ServiceAccount"))
    for child in children:
        if child["kind"] == "Deployment":
            template = child["spec"]["template"]
            metadata = template["metadata"] | {"name": child["metadata"]["name"], "namespace": place}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
            kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
