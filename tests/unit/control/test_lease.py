"""Leader election with two replicas and one API server, on a simulated clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import pytest

from support.memory_api import MemoryApi
from tuningfork.control.health import Heartbeats
from tuningfork.control.lease import Lease

PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator"


class Lost(Exception):  # noqa: N818 - what the process ends with, not an error
    pass


def lost() -> NoReturn:
    raise Lost


def time() -> float:
    return asyncio.get_running_loop().time()


class Replica:
    """One replica whose clock may be wrong, and whose way to the API server may be cut."""

    def __init__(self, api: MemoryApi, name: str, skew: float = 0.0) -> None:
        self.reachable = True
        self.api = api
        self.lease = Lease(
            _Line(self).client(),
            "system",
            "operator",
            name,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=time() + skew),
            on_lost=lost,
            heartbeats=Heartbeats(time),
        )

    async def run(self) -> None:
        await self.lease.acquire()
        await self.lease.hold()


class _Line(MemoryApi):
    """A replica's own way to the shared API server; a cut one hangs, as a lost network does."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica

    async def call_api(self, *args: Any, **kwargs: Any) -> Any:
        if not self._replica.reachable:
            await asyncio.Event().wait()
        return await self._replica.api.call_api(*args, **kwargs)


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(replica.run()) for replica in replicas]
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def holder(api: MemoryApi) -> str:
    return str(api.objects[PATH]["spec"]["holderIdentity"])


async def until(condition: Any) -> float:
    started = time()
    while not condition():
        await asyncio.sleep(0.1)
    return time() - started


async def test_one_holds_it_for_hours_and_the_other_waits() -> None:
    api = MemoryApi()
    one, two = Replica(api, "one"), Replica(api, "two")
    async with running(one, two):
        for _ in range(1000):
            await asyncio.sleep(7.3)
            assert (one.lease.held(), two.lease.held()) == (True, False)
    assert api.objects[PATH]["spec"]["leaseTransitions"] == 1


@pytest.mark.parametrize("skew", [0, 3600, -3600], ids=["same clocks", "an hour ahead", "an hour behind"])
async def test_a_dead_holder_is_followed_within_15_seconds_but_not_before_its_lease_is_over(skew: float) -> None:
    api = MemoryApi()
    one, two = Replica(api, "one"), Replica(api, "two", skew)
    async with running(one):
        await asyncio.sleep(60)
        async with running(two):
            await asyncio.sleep(60)
            assert holder(api) == "one"
            one.reachable = False
            assert 10 - 2 <= await until(two.lease.held) <= 15


async def test_a_holder_that_cannot_renew_ends_before_anybody_else_begins() -> None:
    api = MemoryApi()
    one, two = Replica(api, "one"), Replica(api, "two")
    async with running(one, two) as tasks:
        await asyncio.sleep(60)
        one.reachable = False
        gone = await until(tasks[0].done)
        assert isinstance(tasks[0].exception(), Lost)
        assert gone <= 7.1
        assert not two.lease.held()
        await until(two.lease.held)


async def test_a_short_outage_of_the_api_server_costs_nothing() -> None:
    api = MemoryApi()
    one = Replica(api, "one")
    async with running(one) as tasks:
        await asyncio.sleep(60)
        api.fault = lambda method, path: (503, {})
        await asyncio.sleep(4.5)
        api.fault = lambda method, path: None
        await asyncio.sleep(60)
        assert not tasks[0].done()
        assert one.lease.held()


async def test_a_released_lease_is_taken_within_the_retry_period() -> None:
    api = MemoryApi()
    one, two = Replica(api, "one"), Replica(api, "two")
    async with running(one, two):
        await asyncio.sleep(60)
        await one.lease.release()
        assert not one.lease.held()
        assert holder(api) == ""
        assert await until(two.lease.held) <= 2.1
        await asyncio.sleep(60)
        assert holder(api) == "two", "who released it does not take it back"


async def test_a_conflict_on_renewal_is_not_a_loss() -> None:
    api = MemoryApi()
    one = Replica(api, "one")
    async with running(one) as tasks:
        await asyncio.sleep(60)
        conflicts = iter([(409, {"reason": "Conflict"})] * 2)
        api.fault = lambda method, path: next(conflicts, None) if method == "PUT" else None
        await asyncio.sleep(60)
        assert not tasks[0].done()


async def test_a_lease_that_was_taken_is_lost_at_once() -> None:
    api = MemoryApi()
    one = Replica(api, "one")
    async with running(one) as tasks:
        await asyncio.sleep(60)
        lease = api.objects[PATH]
        lease["spec"]["holderIdentity"] = "two"
        assert await until(tasks[0].done) <= 2.1
        assert isinstance(tasks[0].exception(), Lost)
