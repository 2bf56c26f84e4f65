"""What the controller makes of store and outside reads, and whom an event concerns."""

from collections.abc import Awaitable, Callable, Hashable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from support.rollout_world import SETTINGS, START, World, serving
from tuningfork.api.routes import LoaderState
from tuningfork.control.controller import Key, Reading
from tuningfork.control.rollout import RolloutController
from tuningfork.control.store import MemoryStore
from tuningfork.delivery.evidence import Counts
from tuningfork.delivery.queries import Sample
from tuningfork.planning.plan import Manifest
from tuningfork.providers.errors import TransientError

T = TypeVar("T")
NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
OWNER = Key("Rollout", "ml", "support")


class FakeOutside:
    """Remembers what was asked for; answers what the test says."""

    def __init__(self) -> None:
        self.asked: dict[Hashable, tuple[Key, Callable[[], Awaitable[Any]], float]] = {}
        self.answers: dict[str, Any] = {}

    def latest(
        self, name: Hashable, owner: Key, read: Callable[[], Awaitable[T]], *, max_age: float, timeout: float = 10
    ) -> Reading[T] | None:
        self.asked[name] = (owner, read, max_age)
        assert isinstance(name, tuple)
        answer = self.answers.get(name[0])
        if isinstance(answer, Exception):
            return Reading(NOW, error=answer)
        return None if answer is None else Reading(NOW, value=answer)

    def forget(self, owner: Key) -> None:
        raise AssertionError("the runtime forgets, not the controller")


class FakeMetrics:
    def __init__(self, answer: Callable[[str], list[Sample]]) -> None:
        self.answer = answer

    async def query(self, expression: str, at: datetime) -> list[Sample]:
        return self.answer(expression)


def pod(name: str, component: str, **fields: Any) -> Manifest:
    labels = {"tuningfork.dev/rollout": "support", "tuningfork.dev/component": component}
    metadata = {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": "1", "labels": labels}
    status = {"podIP": "10.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | fields.get("metadata", {}),
        "status": status | fields.get("status", {}),
    }


def as_stored(obj: Manifest, kind: str) -> Manifest:
    return {"kind": kind, **obj, "metadata": {"resourceVersion": "1", **obj["metadata"]}}


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def controller(store: MemoryStore, outside: FakeOutside) -> RolloutController:
    return RolloutController(SETTINGS, store, outside, metrics=FakeMetrics(lambda q: []), now=lambda: NOW)


def raw(world: World) -> Manifest:
    return world.observe().raw


def test_pods_that_end_or_are_deleted_are_no_engines(
    store: MemoryStore, outside: FakeOutside, controller: RolloutController
) -> None:
    store.put(pod("a", "engine"))
    store.put(pod("b", "engine", status={"conditions": []}))
    store.put(pod("evicted", "engine", status={"phase": "Failed"}))
    store.put(pod("leaving", "engine", metadata={"deletionTimestamp": "2026-01-31T12:00:00Z"}))
    store.put(pod("r", "router"))
    outside.answers["engine"] = {"uid-a": LoaderState(engine_up=True), "uid-b": None}
    observed = controller.observe(raw(World()))
    assert [(e.name, e.ready, e.loader) for e in observed.engines] == [
        ("a", True, LoaderState(engine_up=True)),
        ("b", False, None),
    ]
    assert [(r.name, r.ready, r.state) for r in observed.routers] == [("r", True, None)]


def test_what_a_restarted_operator_does_not_know_yet_is_not_reported_as_down(
    store: MemoryStore, outside: FakeOutside, controller: RolloutController
) -> None:
    store.put(pod("a", "engine"))
    store.put(pod("r", "router"))
    assert controller.plan(controller.observe(raw(serving())), NOW).status is None
    outside.answers["engine"] = {"uid-a": None}
    outside.answers["router"] = {"uid-r": None}
    told = controller.plan(controller.observe(raw(serving())), NOW).status
    assert told is not None
    assert {c["type"]: c["status"] for c in told["conditions"]}["Available"] == "False"


@pytest.mark.parametrize(
    ("world", "age"),
    [pytest.param(World(), 1.0, id="while it starts"), pytest.param(serving(), 10.0, id="when nothing happens")],
)
def test_pods_are_asked_often_only_while_something_is_under_way(
    store: MemoryStore, outside: FakeOutside, controller: RolloutController, world: World, age: float
) -> None:
    store.put(pod("a", "engine"))
    controller.observe(raw(world))
    assert [
        (name[0], owner, max_age) for name, (owner, _, max_age) in outside.asked.items() if name[0] == "engine"
    ] == [  # type: ignore[index]
        ("engine", OWNER, age)
    ]


def walking() -> World:
    return serving().ask_for("support-v2").run_until(lambda w: bool(w.shares.get("support-v2")))


def test_each_metric_of_the_walk_is_one_reading_an_interval(
    outside: FakeOutside, controller: RolloutController
) -> None:
    controller.observe(raw(walking()))
    metrics = [
        (name[2].version, name[3].name, entry[2]) for name, entry in outside.asked.items() if name[0] == "metric"
    ]  # type: ignore[index]
    assert metrics == [("support-v2", "feedback", 5.0), ("support-v2", "errors", 5.0)]


async def test_a_reading_asks_prometheus_and_counts(outside: FakeOutside, store: MemoryStore) -> None:
    def answer(query: str) -> list[Sample]:
        assert "tuningfork_router_feedback_total" in query
        labels = {"model_version": "support-v2", "slice": "candidate"}
        return [Sample(labels | {"rating": "down"}, 3), Sample(labels | {"rating": "up"}, 5)]

    controller = RolloutController(SETTINGS, store, outside, metrics=FakeMetrics(answer), now=lambda: NOW)
    controller.observe(raw(walking()))
    read = next(entry[1] for name, entry in outside.asked.items() if name[0] == "metric" and name[3].name == "feedback")  # type: ignore[index]
    found = await read()
    assert (found.at, found.counts, found.baseline) == (NOW, Counts(3, 8), Counts(0, 0))


async def test_a_provider_that_fails_is_a_measurement_without_backoff(outside: FakeOutside, store: MemoryStore) -> None:
    def answer(query: str) -> list[Sample]:
        raise TransientError("Prometheus: no answer within 5 s")

    controller = RolloutController(SETTINGS, store, outside, metrics=FakeMetrics(answer), now=lambda: NOW)
    controller.observe(raw(walking()))
    read = next(entry[1] for name, entry in outside.asked.items() if name[0] == "metric")  # type: ignore[index]
    assert (await read()).error == "Prometheus: no answer within 5 s"


def test_a_reading_that_broke_off_is_a_provider_error(outside: FakeOutside, controller: RolloutController) -> None:
    outside.answers["metric"] = TimeoutError("no answer within 20 s")
    observed = controller.observe(raw(walking()))
    assert {m.error for m in observed.measurements.values()} == {"no answer within 20 s"}


def test_only_versions_that_the_tracks_name_and_children_that_we_own_are_seen(
    store: MemoryStore, controller: RolloutController
) -> None:
    world = serving()
    for name in ("support-v1", "support-v2"):
        version = world.versions[name]
        store.put(
            as_stored({"metadata": {"name": name, "namespace": "ml"}, "spec": version.spec.dump()}, "ModelVersion")
        )
    for child in world.children.values():
        store.put(as_stored(child, child["kind"]))
    foreign = as_stored(world.children["Service", "support"], "Service")
    owner = foreign["metadata"]["ownerReferences"][0] | {"uid": "another"}
    store.put(foreign | {"metadata": foreign["metadata"] | {"name": "foreign", "ownerReferences": [owner]}})
    observed = controller.observe(raw(world))
    assert set(observed.versions) == {"support-v1"}
    assert set(observed.children) == set(world.children)


def test_whom_an_event_concerns(store: MemoryStore, controller: RolloutController) -> None:
    def rollout(name: str, model: str, version: str) -> Manifest:
        spec = World(version).spec | {"model": model}
        return as_stored({"metadata": {"name": name, "namespace": "ml"}, "spec": spec}, "Rollout")

    for obj in (rollout("a", "support", "v1"), rollout("b", "support", "v2"), rollout("c", "other", "v1")):
        store.put(obj)
    keys = {watched.resource.kind: watched.keys for watched in controller.watched}
    version = {"kind": "ModelVersion", "metadata": {"name": "v1", "namespace": "ml"}}
    assert [key.name for key in keys["ModelVersion"](version)] == ["a", "c"]
    assert [key.name for key in keys["Rollout"](rollout("b", "support", "v2"))] == ["a", "b"]
    assert keys["Pod"](pod("x", "engine")) == [OWNER]
    assert keys["Pod"](pod("x", "trainer", metadata={"labels": {"tuningfork.dev/component": "trainer"}})) == []


def test_the_plan_is_the_pure_one(controller: RolloutController) -> None:
    plan = controller.plan(controller.observe(raw(World())), START)
    assert [child["kind"] for child in plan.apply] == [
        "ConfigMap", "ServiceAccount", "RoleBinding", "Service", "Deployment", "Service", "Deployment",
    ]  # fmt: skip
