"""The workqueue, on a simulated clock."""

import asyncio

import pytest

from tuningfork.control.queue import ShutDownError, WorkQueue


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_key_added_many_times_is_one_piece_of_work() -> None:
    queue = WorkQueue[str]()
    for _ in range(100):
        queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_keys_come_in_the_order_of_their_first_adding() -> None:
    queue = WorkQueue[str]()
    for key in ("a", "b", "a", "c"):
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_is_handled_by_one_worker_at_a_time() -> None:
    queue = WorkQueue[str]()
    active = most = handled = 0

    async def work() -> None:
        nonlocal active, most, handled
        while True:
            key = await queue.get()
            active += 1
            most = max(most, active)
            await asyncio.sleep(1)
            active -= 1
            handled += 1
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(10):
        queue.add("a")
        await asyncio.sleep(0.3)
    await asyncio.sleep(10)
    for worker in workers:
        worker.cancel()
    assert most == 1
    assert handled == 4, "0 s, and once for each second in which it was added again"


async def test_a_key_added_while_it_is_handled_comes_again() -> None:
    queue = WorkQueue[str]()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0, "its worker still has it"
    queue.done("a")
    assert len(queue) == 1


async def test_a_worker_that_waits_gets_the_next_key() -> None:
    queue = WorkQueue[str]()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(5)
    queue.add("a")
    assert await waiting == "a"
    assert now() == 5


async def test_a_cancelled_worker_takes_no_key_with_it() -> None:
    queue = WorkQueue[str]()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        pytest.param([7], 7, id="after the delay"),
        pytest.param([7, 3], 3, id="an earlier wish replaces a later one"),
        pytest.param([3, 7], 3, id="a later wish does not replace an earlier one"),
        pytest.param([7, 0], 0, id="at once"),
        pytest.param([-1], 0, id="in the past is at once"),
    ],
)
async def test_the_earliest_wish_counts(delays: list[float], expected: float) -> None:
    queue = WorkQueue[str]()
    for delay in delays:
        queue.add_after("a", delay)
    assert await queue.get() == "a"
    assert now() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        pytest.param(0.0, [1, 2, 4, 8, 16, 32, 64, 128, 150, 150], id="shortest"),
        pytest.param(1.0, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300], id="longest"),
    ],
)
async def test_pauses_double_between_one_second_and_five_minutes(jitter: float, expected: list[float]) -> None:
    queue = WorkQueue[str](jitter=lambda: jitter)
    pauses = []
    for _ in expected:
        started = now()
        queue.retry("a")
        queue.done(await queue.get())
        pauses.append(now() - started)
    assert pauses == pytest.approx(expected)


async def test_each_key_has_its_own_pauses_and_success_ends_them() -> None:
    queue = WorkQueue[str](jitter=lambda: 1.0)
    for _ in range(5):
        queue.retry("a")
    assert queue.retry("b") == 2
    queue.forgive("a")
    assert queue.retry("a") == 2


async def test_a_forgotten_key_does_not_come_back() -> None:
    queue = WorkQueue[str]()
    queue.add_after("gone", 5)
    queue.add_after("other", 9)
    queue.forget("gone")
    assert await queue.get() == "other"


async def test_a_closed_queue_sends_its_workers_home_and_takes_nothing() -> None:
    queue = WorkQueue[str]()
    waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add_after("later", 1)
    queue.close()
    queue.add("a")
    assert [type(e) for e in await asyncio.gather(*waiting, return_exceptions=True)] == [ShutDownError] * 3
    with pytest.raises(ShutDownError):
        await queue.get()
