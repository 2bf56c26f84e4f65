"""The worker: what becomes of a key, and what is said about it."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.memory_api import MemoryApi
from tuningfork.control.controller import Key, Resource, Watched
from tuningfork.control.events import EventRecorder
from tuningfork.control.executor import Executor
from tuningfork.control.health import Heartbeats
from tuningfork.control.metrics import Metrics
from tuningfork.control.outside import OutsideReads
from tuningfork.control.queue import WorkQueue
from tuningfork.control.reconcile import Reconciler
from tuningfork.control.store import MemoryStore
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.providers import errors

JOBS = Resource("tuningfork.dev/v1alpha1", "FineTuneJob", "finetunejobs")
KEY = Key("FineTuneJob", "ml", "a")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Controller:
    resource = JOBS
    watched: tuple[Watched, ...] = ()

    def __init__(self, plan: Callable[[], Plan]) -> None:
        self._plan = plan
        self.planned = 0

    def observe(self, parent: Manifest) -> Manifest:
        return parent

    def plan(self, observed: Manifest, now: datetime) -> Plan:
        self.planned += 1
        return self._plan()


PATH = "/apis/tuningfork.dev/v1alpha1/namespaces/ml/finetunejobs/a"


class Bench:
    def __init__(self, plan: Callable[[], Plan], *, exists: bool = True, **metadata: str) -> None:
        job = {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.kind,
            "metadata": {"name": "a", "namespace": "ml"} | metadata,
        }
        self.api = MemoryApi((PATH, job))
        self.store = MemoryStore()
        if exists:
            self.store.put(self.api.objects[PATH])
        self.queue = WorkQueue[Key](jitter=lambda: 1.0)
        self.metrics = Metrics()
        self.controller = Controller(plan)
        self.leads = True
        self.gone: list[Key] = []
        kube = self.api.client()
        events = EventRecorder(kube, lambda: NOW)
        self.reconciler = Reconciler(
            {"FineTuneJob": self.controller},
            self.store,
            self.queue,
            Executor(kube, self.store, self.store.put, events, {JOBS: None}),
            OutsideReads(self.queue, lambda: NOW),
            events,
            self.metrics,
            lambda: NOW,
            may_act=lambda: self.leads,
            on_gone=self.gone.append,
        )

    def results(self) -> dict[str, float]:
        samples = next(iter(self.metrics.reconciles.collect())).samples
        return {s.labels["result"]: s.value for s in samples if s.name.endswith("_total")}

    async def comes_back(self) -> float:
        """Seconds until the key comes back."""
        started = asyncio.get_running_loop().time()
        await self.queue.get()
        return asyncio.get_running_loop().time() - started


def fails(error: Exception) -> Callable[[], Plan]:
    def plan() -> Plan:
        raise error

    return plan


async def test_a_plan_that_acts_says_why_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(lambda: Plan(status={"phase": "Failed"}, why=("The data set does not exist.",)))
    await bench.reconciler.handle(KEY)
    await bench.reconciler.handle(KEY)
    assert caplog.messages == ["FineTuneJob ml/a: The data set does not exist."]
    assert bench.results() == {"success": 2}


async def test_a_plan_may_ask_to_be_looked_at_again() -> None:
    bench = Bench(lambda: Plan(requeue_after=90))
    await bench.reconciler.handle(KEY)
    assert await bench.comes_back() == 90


@pytest.mark.parametrize(
    ("error", "result", "level", "event"),
    [
        pytest.param(errors.ForbiddenError("no"), "permanent", logging.WARNING, True, id="a missing permission"),
        pytest.param(errors.TransientError("later"), "transient", logging.WARNING, True, id="a server that is away"),
        pytest.param(errors.ConflictError("mine"), "conflict", logging.DEBUG, False, id="somebody who was faster"),
        pytest.param(ZeroDivisionError("oh"), "bug", logging.ERROR, False, id="a bug"),
    ],
)
async def test_errors_are_logged_once_and_tried_again_with_growing_pauses(
    error: Exception, result: str, level: int, event: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="tuningfork")
    bench = Bench(fails(error))
    bench.queue.add(KEY)
    pauses = []
    for _ in range(4):
        pauses.append(await bench.comes_back())
        caplog.clear()
        await bench.reconciler.handle(KEY)
        bench.queue.done(KEY)
        ours = [record.levelno for record in caplog.records if record.name == "tuningfork.control.reconcile"]
        assert ours == [level]
    assert pauses == pytest.approx([0, 2, 4, 8])
    assert bench.results() == {result: 4}
    assert any("/events" in path for _, path in bench.api.writes) == event


async def test_what_cannot_be_written_is_said_in_the_status_when_it_lasts() -> None:
    bench = Bench(fails(errors.TransientError("Service ml/a belongs to somebody else")), uid="u", resourceVersion="1")
    await bench.reconciler.handle(KEY)
    assert "status" not in bench.api.objects[PATH], "a single hiccup is no news"
    await bench.reconciler.handle(KEY)
    status = bench.api.objects[PATH]["status"]
    assert status["message"] == "Service ml/a belongs to somebody else"
    assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
        "Ready": ("False", "ReconcileError"),
        "Reconciling": ("True", "ReconcileError"),
    }


async def test_a_success_ends_the_pauses() -> None:
    outcomes = iter([errors.TransientError("later")] * 3)

    def plan() -> Plan:
        for error in outcomes:
            raise error
        return Plan()

    bench = Bench(plan)
    for _ in range(4):
        await bench.reconciler.handle(KEY)
    assert bench.queue.retry(KEY) == 2


async def test_an_object_that_is_being_deleted_is_left_alone() -> None:
    bench = Bench(lambda: Plan(status={"phase": "Failed"}), deletionTimestamp="2026-01-01T00:00:00Z")
    await bench.reconciler.handle(KEY)
    assert bench.api.requests == []


async def test_everything_about_a_gone_object_is_forgotten() -> None:
    bench = Bench(Plan, exists=False)
    bench.queue.add_after(KEY, 5)
    await bench.reconciler.handle(KEY)
    await asyncio.sleep(10)
    assert len(bench.queue) == 0
    assert bench.gone == [KEY]


async def test_who_does_not_hold_the_lease_plans_nothing() -> None:
    bench = Bench(Plan)
    bench.leads = False
    await bench.reconciler.handle(KEY)
    assert bench.controller.planned == 0


async def test_workers_finish_what_they_have_when_the_queue_closes_and_a_stuck_one_shows() -> None:
    bench = Bench(lambda: Plan(status={"phase": "Failed"}))
    heartbeats = Heartbeats(asyncio.get_running_loop().time)

    async def slowly(*args: Any, **kwargs: Any) -> tuple[int, Manifest]:
        await asyncio.sleep(400)
        return 200, {
            "metadata": {"name": "a", "namespace": "ml", "uid": "u", "resourceVersion": "9"},
            "kind": "FineTuneJob",
        }

    bench.reconciler._executor._kube._exchange = slowly  # type: ignore[method-assign]
    worker = asyncio.create_task(bench.reconciler.work("worker 0", heartbeats))
    bench.queue.add(KEY)
    await asyncio.sleep(299)
    assert heartbeats.stuck() == []
    await asyncio.sleep(11)
    assert heartbeats.stuck() == ["worker 0 is 10 s overdue"]
    bench.queue.close()
    await worker
    assert heartbeats.stuck() == []
    assert bench.results() == {"success": 1}
