"""The runtime on a real API server: converges, stays quiet, and gets over what breaks between the two."""

import asyncio
import time
from collections.abc import Callable

import pytest

from support.operators import OperatorProcess
from support.proxy import Call, FaultProxy
from support.toy import CONFIG_MAPS, HUNG
from support.toy_world import World
from support.waiting import eventually, never
from tuningfork.providers.kubernetes import Kubernetes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

Start = Callable[..., OperatorProcess]

QUIET = 5.0
"""Seconds of watching that nothing happens; with a list of everything each second, five chances to do something needless."""

FAILOVER = 15.0
HAND_OVER = 3.0


async def test_a_converged_world_causes_no_writes(world: World, start: Start, proxy: FaultProxy) -> None:
    names = [f"job-{i}" for i in range(20)]
    await world.create(*names)
    operator = start("one", prune_seconds=1)
    await world.settled(*names)

    async def all_written() -> bool:
        return len(proxy.writes) == 3 * len(names) + 1

    await eventually(all_written)  # the child, the status without it, the status with it; and the certificate
    before = len(proxy.writes)
    reconciles = operator.metric("tuningfork_reconciles_total")

    async def wrote() -> list[str]:
        return [str(call) for call in proxy.writes[before:]]

    await never(wrote, during=QUIET)
    assert operator.metric("tuningfork_reconciles_total") == reconciles, "lists that show nothing new wake nobody"


async def test_a_restart_of_a_converged_world_causes_no_writes(world: World, start: Start, proxy: FaultProxy) -> None:
    await world.create("a", "b")
    start("one").terminate()
    first = start("two")
    await world.settled("a", "b")
    first.terminate()
    before = len(proxy.writes)
    second = start("three")

    async def reconciled() -> bool:
        return second.metric("tuningfork_reconciles_total") >= 2

    await eventually(reconciled)
    assert [str(call) for call in proxy.writes[before:]] == []


async def test_a_changed_or_deleted_child_is_put_right(world: World, start: Start, kube: Kubernetes) -> None:
    await world.create("changed", "deleted", "extended")
    start("one")
    await world.settled("changed", "deleted", "extended")
    await kube.patch(CONFIG_MAPS, world.namespace, "changed", {"data": {"seed": "99"}})
    await kube.delete(CONFIG_MAPS, world.namespace, "deleted")
    await kube.patch(CONFIG_MAPS, world.namespace, "extended", {"data": {"theirs": "kept"}})

    async def right() -> bool:
        children = await asyncio.gather(*map(world.child, ("changed", "deleted", "extended")))
        assert [child and child["data"] for child in children] == [
            {"seed": "1"},
            {"seed": "1"},
            {"seed": "1", "theirs": "kept"},
        ]
        return True

    await eventually(right)


async def test_after_a_kill_the_standby_leads_within_15_seconds(world: World, start: Start) -> None:
    one = start("one")
    two = start("two")
    await world.create("before")
    await world.settled("before")
    assert (one.leads(), two.leads()) == (True, False)
    one.kill()
    killed = time.monotonic()
    await world.create("after")
    await world.settled("after", within=FAILOVER)
    assert two.leads()
    assert time.monotonic() - killed < FAILOVER


async def test_after_sigterm_the_standby_leads_within_3_seconds(world: World, start: Start) -> None:
    one = start("one")
    two = start("two")
    await world.create("before")
    await world.settled("before")
    asked = time.monotonic()
    leaving = asyncio.create_task(asyncio.to_thread(one.terminate))

    async def leads() -> bool:
        return two.leads()

    await eventually(leads, within=HAND_OVER)
    assert time.monotonic() - asked < HAND_OVER
    assert await leaving == 0
    await world.create("after")
    await world.settled("after")


async def test_a_standby_writes_nothing_but_is_ready(world: World, start: Start, proxy: FaultProxy) -> None:
    one = start("one")
    two = start("two")
    await world.create("a")
    await world.settled("a")
    assert two.get("/readyz") == (200, "ok")
    assert two.metric('tuningfork_objects{kind="FineTuneJob",phase="Training"}') == 1
    assert [two.metric(f'tuningfork_api_requests_total{{code="{c}",resource="configmaps"') for c in (200, 201)] == [
        1,
        0,
    ]
    assert two.terminate() == 0, "it ends in order, too"
    assert one.leads()
    assert len(proxy.writes) == 4, "three for the job, one for the certificate"


async def test_a_deletion_that_the_watch_missed_is_found_by_the_list(
    world: World, start: Start, kube: Kubernetes, proxy: FaultProxy
) -> None:
    await world.create("a")
    start("one", prune_seconds=4)
    await world.settled("a")
    proxy.muted = lambda path: path.endswith("/configmaps")
    first = await kube.delete(CONFIG_MAPS, world.namespace, "a")

    async def again() -> bool:
        child = await world.child("a")
        return child is not None and child["metadata"]["uid"] != first.get("details", first).get("uid")

    await never(again, during=0.5)
    await eventually(again)


async def test_a_job_that_the_watch_missed_is_found_by_the_list(world: World, start: Start, proxy: FaultProxy) -> None:
    start("one", prune_seconds=2)
    proxy.muted = lambda path: True
    await world.create("unseen")
    await world.settled("unseen")


async def test_a_hung_outside_read_does_not_delay_other_jobs(world: World, start: Start) -> None:
    await world.create(HUNG)
    operator = start("one")
    names = [f"job-{i}" for i in range(30)]
    await world.create(*names)
    await world.settled(*names, HUNG)
    assert operator.metric("tuningfork_outside_reads_total") == 0, "it hangs still"
    assert operator.get("/healthz") == (200, "ok")


@pytest.mark.parametrize("status", [409, 500, 429])
async def test_refused_writes_are_done_later(status: int, world: World, start: Start, proxy: FaultProxy) -> None:
    refused: list[str] = []

    def fault(call: Call) -> int | None:
        decides = call.method in ("PUT", "PATCH") and "/leases/" not in call.path
        if not decides or len(refused) == 4:
            return None
        refused.append(call.path)
        return status

    proxy.fault = fault
    await world.create("a", "b")
    operator = start("one")
    await world.settled("a", "b", within=30)
    assert len(refused) == 4
    assert operator.metric("tuningfork_queue_retries_total") >= 2, "each of the two came back"


async def test_cut_connections_are_opened_again(world: World, start: Start, proxy: FaultProxy) -> None:
    await world.create("a")
    start("one")
    await world.settled("a")
    for round_ in range(2, 5):
        proxy.cut()
        await world.set_seed("a", round_)
        await world.settled("a", seed=round_)


async def test_an_api_server_that_is_away_for_moments_ends_nothing(
    world: World, start: Start, proxy: FaultProxy
) -> None:
    operator = start("one")
    await world.create("a")
    await world.settled("a")
    proxy.down = True
    proxy.cut()
    await world.set_seed("a", 2)
    await asyncio.sleep(4)  # the Lease is given up after 7
    assert operator.get("/healthz") == (200, "ok")
    proxy.down = False
    await world.settled("a", seed=2)
    assert operator.process.poll() is None


async def test_without_an_api_server_the_leader_ends_and_the_standby_stays_and_leads_later(
    world: World, start: Start, proxy: FaultProxy
) -> None:
    one = start("one")
    two = start("two")
    await world.create("a")
    await world.settled("a")
    proxy.down = True
    proxy.cut()
    assert await asyncio.to_thread(one.process.wait, 10) == 1
    await asyncio.sleep(12)
    assert two.get("/healthz") == (200, "ok")
    assert not two.leads()
    proxy.down = False
    await world.set_seed("a", 2)
    await world.settled("a", seed=2, within=FAILOVER)
    assert two.leads()


async def test_a_name_that_is_taken_is_said_on_the_job_and_taken_over_when_it_is_free(
    world: World, start: Start, kube: Kubernetes
) -> None:
    taken = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": world.namespace},
        "data": {"precious": "data"},
    }
    await kube.create(CONFIG_MAPS, taken)
    await world.create("a")
    start("one")

    async def said() -> bool:
        events = await kube.list(CONFIG_MAPS._replace(kind="Event", plural="events"), namespace=world.namespace)
        texts = [event["message"] for event in events.items if event["reason"] == "ReconcileError"]
        return bool(texts) and texts[0] == (
            f"ConfigMap {world.namespace}/a exists already and belongs to nobody, not to FineTuneJob {world.namespace}/a:"
            " delete or rename that ConfigMap"
        )

    await eventually(said)
    child = await world.child("a")
    assert child
    assert child["data"] == {"precious": "data"}
    await kube.delete(CONFIG_MAPS, world.namespace, "a")
    await world.settled("a", within=30)


async def test_an_operator_killed_after_each_of_its_writes_ends_up_the_same(
    world: World, start: Start, proxy: FaultProxy
) -> None:
    operator = start("one")
    kills: list[str] = []

    def kill(call: Call) -> None:
        kills.append(str(call))
        operator.process.kill()

    proxy.after_write = kill
    await world.create("a")
    uids: set[str] = set()

    async def settled() -> bool:
        if child := await world.child("a"):
            uids.add(child["metadata"]["uid"])
        if operator.process.poll() is not None:
            operator.start()
            return False
        return "child there" in await world.message("a")

    await eventually(settled, within=60)
    writes = [call.method for call in proxy.writes if not call.path.endswith("/secrets")]
    assert writes == ["PATCH", "PUT"], "what was done before a kill is not done again"
    assert len(kills) >= 2
    assert len(uids) == 1
