"""The real API server takes what the planner makes, and keeps every field of the status as it was written."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from support.api_server import Api
from support.jobs import CPU_NODE, JobWorld, make_job, preparing, training
from tuningfork.sizing import GIB, Offer

pytestmark = pytest.mark.cluster

L4 = Offer("nvidia-l4", 22 * GIB, ("NVIDIA-L4",))

WORLDS = [
    pytest.param(make_job, id="prepare"),
    pytest.param(lambda: preparing().finished(0).prepared(), id="train on cpu"),
    pytest.param(
        lambda: make_job().prepared().cluster_has(L4, *CPU_NODE).spec(compute__accelerators=["nvidia-l4"]),
        id="train on a GPU",
    ),
    pytest.param(lambda: training().finished(0).with_result(), id="register"),
]


@pytest.mark.parametrize("build", WORLDS)
def test_the_server_takes_every_child_with_strict_validation(api: Api, build: Callable[[], JobWorld]) -> None:
    created = build().plan().create
    assert created
    for child in created:
        here = copy.deepcopy(child)
        here["metadata"]["namespace"] = api.namespace
        api.create(here, "--dry-run=server", "--validate=strict")


@pytest.mark.parametrize("build", WORLDS[:3])
def test_a_restricted_namespace_admits_the_pods(api: Api, build: Callable[[], JobWorld]) -> None:
    (job,) = [child for child in build().plan().create if child["kind"] == "Job"]
    template = job["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trainer", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    api.create(pod, "--dry-run=server", "--validate=strict")


STATUSES = [
    pytest.param(make_job, id="preparing"),
    pytest.param(lambda: training().pod("Running").reports("train", 3, loss=2.5), id="training"),
    pytest.param(lambda: training().finished(40, says="no", reason="Failed"), id="retrying"),
    pytest.param(lambda: training().finished(10).with_result(accepted=False), id="rejected"),
    pytest.param(lambda: training().finished(0).with_result().step(), id="succeeded"),
]


@pytest.mark.parametrize("build", STATUSES)
def test_the_server_keeps_every_field_of_a_status(api: Api, build: Callable[[], JobWorld]) -> None:
    world = build().step()
    created = api.create(_creatable(world, api.namespace))
    try:
        api.set_status(created, world.status)
        live = api("get", f"ftj/{world.name}", "-o", "json")
        assert json.loads(live)["status"] == world.status
    finally:
        api.delete(created)


def _creatable(world: JobWorld, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": world.parent["apiVersion"],
        "kind": world.parent["kind"],
        "metadata": {"name": world.name, "namespace": namespace},
        "spec": world.parent["spec"],
    }
