"""A plan becomes requests: which, in which order, and when none."""

import copy
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.memory_api import MemoryApi
from tuningfork.control.controller import Resource
from tuningfork.control.events import EventRecorder
from tuningfork.control.executor import Executor
from tuningfork.control.store import MemoryStore
from tuningfork.planning.plan import Event, ObjectRef, Plan
from tuningfork.providers import errors

JOBS = Resource("tuningfork.dev/v1alpha1", "FineTuneJob", "finetunejobs")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

JOB_PATH = "/apis/tuningfork.dev/v1alpha1/namespaces/ml/finetunejobs/a"
MAPS_PATH = "/api/v1/namespaces/ml/configmaps"
EVENTS_PATH = "/api/v1/namespaces/ml/events"

OURS = [{"kind": "FineTuneJob", "name": "a", "uid": "uid-a"}]
STRANGER = [{"kind": "Rollout", "name": "b", "uid": "uid-b"}]


def config_map(name: str = "child", *, owners: list[dict[str, str]] = OURS, **data: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ml",
        "labels": {"tuningfork.dev/job": "a"},
        "ownerReferences": owners,
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Bench:
    """An API server in memory with the parent and these children, all of them seen."""

    def __init__(self, *children: dict[str, Any], seen: bool = True, status: dict[str, Any] | None = None) -> None:
        job = {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": {"name": "a", "namespace": "ml", "uid": "uid-a"},
        } | ({"status": status} if status else {})
        self.api = MemoryApi(
            (JOB_PATH, job), *((f"{MAPS_PATH}/{child['metadata']['name']}", child) for child in children)
        )
        self.store = MemoryStore()
        for obj in self.api.objects.values():
            if seen or obj["kind"] == JOBS.kind:
                self.store.put(copy.deepcopy(obj))
        kube = self.api.client()
        self.executor = Executor(
            kube,
            self.store,
            self.store.put,
            EventRecorder(kube, lambda: NOW),
            {JOBS: None, CONFIG_MAPS: "tuningfork.dev/job"},
        )

    async def execute(self, **plan: Any) -> bool:
        parent = self.store.get("FineTuneJob", "ml", "a")
        assert parent
        return await self.executor.execute(parent, Plan(**plan))


async def test_the_order_is_delete_create_apply_status_events() -> None:
    bench = Bench(config_map("old"))
    await bench.execute(
        events=(Event("Normal", "Started", "It started."),),
        status={"phase": "Training"},
        apply=(config_map("applied"),),
        create=(config_map("created"),),
        delete=(ObjectRef("v1", "ConfigMap", "ml", "old"),),
    )
    assert bench.api.writes == [
        ("DELETE", f"{MAPS_PATH}/old"),
        ("POST", MAPS_PATH),
        ("PATCH", f"{MAPS_PATH}/applied"),
        ("PUT", f"{JOB_PATH}/status"),
        ("POST", EVENTS_PATH),
    ]


async def test_a_converged_object_causes_no_request_at_all() -> None:
    bench = Bench(config_map(key="value"), status={"phase": "Training"})
    assert not await bench.execute(apply=(config_map(key="value"),), status={"phase": "Training"})
    assert bench.api.requests == []


async def test_what_was_written_is_seen_at_once() -> None:
    bench = Bench()
    assert await bench.execute(apply=(config_map(key="value"),), status={"phase": "Training"})
    assert not await bench.execute(apply=(config_map(key="value"),), status={"phase": "Training"})


async def test_the_status_is_replaced_as_a_whole_without_numbers_that_json_has_not() -> None:
    bench = Bench(status={"phase": "Training", "progress": {"loss": 1.5}, "gone": True})
    await bench.execute(status={"phase": "Training", "progress": {"loss": math.nan, "step": 3}, "message": None})
    assert bench.api.bodies[-1] == {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a", "namespace": "ml", "uid": "uid-a", "resourceVersion": "1"},
        "status": {"phase": "Training", "progress": {"step": 3}},
    }


async def test_a_status_made_from_an_old_observation_is_a_conflict_and_says_nothing() -> None:
    bench = Bench()
    bench.api.objects[JOB_PATH]["metadata"]["resourceVersion"] = "77"
    with pytest.raises(errors.ConflictError):
        await bench.execute(status={"phase": "Training"}, events=(Event("Normal", "Started", "It started."),))
    assert bench.api.writes == [("PUT", f"{JOB_PATH}/status")]


@pytest.mark.parametrize(
    ("child", "ref"),
    [
        pytest.param(None, ObjectRef("v1", "ConfigMap", "ml", "child"), id="is gone already"),
        pytest.param(config_map(), ObjectRef("v1", "ConfigMap", "ml", "child", "another-uid"), id="has a successor"),
    ],
)
async def test_deleting_is_done_when_it(child: dict[str, Any] | None, ref: ObjectRef) -> None:
    bench = Bench(*filter(None, [child]))
    assert not await bench.execute(delete=(ref,))
    assert (f"{MAPS_PATH}/child" in bench.api.objects) == (child is not None)


async def test_what_is_on_its_way_out_is_not_deleted_again() -> None:
    child = config_map()
    child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bench = Bench(child)
    assert not await bench.execute(delete=(ObjectRef("v1", "ConfigMap", "ml", "child"),))
    assert bench.api.requests == []


async def test_creating_what_is_there_and_ours_is_done_and_seen() -> None:
    bench = Bench(config_map(key="first"), seen=False)
    assert not await bench.execute(create=(config_map(key="second"),))
    child = bench.store.get("ConfigMap", "ml", "child")
    assert child
    assert child["data"] == {"key": "first"}, "created once and never touched again"


def leaving(child: dict[str, Any]) -> dict[str, Any]:
    child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return child


def unlabelled(child: dict[str, Any]) -> dict[str, Any]:
    child["metadata"]["labels"] = {"app": "a"}
    return child


@pytest.mark.parametrize(
    ("live", "plan", "message"),
    [
        pytest.param(
            config_map(owners=STRANGER),
            lambda: {"create": (config_map(),)},
            "ConfigMap ml/child exists already and belongs to Rollout b (uid-b), not to FineTuneJob ml/a:"
            " delete or rename that ConfigMap",
            id="creating what is another's",
        ),
        pytest.param(
            config_map(owners=[]),
            lambda: {"apply": (config_map(key="new"),)},
            "ConfigMap ml/child exists already and belongs to nobody, not to FineTuneJob ml/a: delete or rename that ConfigMap",
            id="applying to what is nobody's",
        ),
        pytest.param(
            leaving(config_map()),
            lambda: {"create": (config_map(),)},
            "ConfigMap ml/child is still being deleted; it is created again when that is done",
            id="creating what is still being deleted",
        ),
        pytest.param(
            config_map(),
            lambda: {"apply": (unlabelled(config_map(key="new")),)},
            "ConfigMap ml/child has no label tuningfork.dev/job, by which configmaps are watched",
            id="a child that the watch would never show",
        ),
        pytest.param(
            config_map(),
            lambda: {"create": (config_map() | {"kind": "Secret"},)},
            "Secret (v1) is no resource of a controller's `watched`",
            id="a kind that is not watched",
        ),
    ],
)
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_refusals(live: dict[str, Any], plan: Callable[[], dict[str, Any]], message: str, seen: bool) -> None:
    bench = Bench(live, seen=seen)
    with pytest.raises(errors.ProviderError) as error:
        await bench.execute(**plan())
    assert str(error.value) == message
    assert [request for request in bench.api.writes if request[0] != "POST"] == [], "nobody's object was changed"


async def test_what_outlives_its_parent_is_known_by_its_label() -> None:
    version = config_map(owners=[])
    version["metadata"]["labels"]["tuningfork.dev/job-uid"] = "uid-a"
    bench = Bench(version, seen=False)
    assert not await bench.execute(create=(version,))


async def test_an_event_is_said_once_a_minute_and_then_counted() -> None:
    at = [NOW]
    api = MemoryApi()
    recorder = EventRecorder(api.client(), lambda: at[0])
    parent = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "namespace": "ml", "uid": "u"}}
    for second in range(150):
        at[0] = NOW.replace(minute=second // 60, second=second % 60)
        await recorder.record(parent, Event("Warning", "Trouble", "It does not work."))
    assert [method for method, _ in api.writes] == ["POST", "PATCH", "PATCH"]
    assert [(event["count"], event["lastTimestamp"]) for event in api.objects.values()] == [(3, "2026-01-01T00:02:00Z")]


async def test_an_event_goes_on_counting_after_a_restart() -> None:
    api = MemoryApi()
    parent = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "namespace": "ml", "uid": "u"}}
    for _ in range(3):
        await EventRecorder(api.client(), lambda: NOW).record(parent, Event("Warning", "Trouble", "It does not work."))
    assert [event["count"] for event in api.objects.values()] == [3]


async def test_an_event_that_cannot_be_written_fails_nothing() -> None:
    bench = Bench()
    bench.api.fault = lambda method, path: (500, {}) if "events" in path else None
    assert await bench.execute(status={"phase": "Failed"}, events=(Event("Warning", "Failed", "It failed."),))
