"""Outside reads, on a simulated clock."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tuningfork.control.controller import Key, Reading
from tuningfork.control.outside import ANSWERS_LIMIT, SLOTS, OutsideReads
from tuningfork.control.queue import WorkQueue

JOB = Key("FineTuneJob", "ml", "a")
ROLLOUT = Key("Rollout", "ml", "a")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def now() -> datetime:
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


class Bench:
    """Reads that take a second each, and what was enqueued."""

    def __init__(self) -> None:
        self.queue = WorkQueue[Key]()
        self.outside = OutsideReads(self.queue, now)
        self.reads = 0
        self.error: Exception | None = None

    async def read(self) -> int:
        await asyncio.sleep(1)
        self.reads += 1
        if self.error:
            raise self.error
        return self.reads

    def latest(self, *, max_age: float = 15, owner: Key = JOB, **more: float) -> Reading[int] | None:
        return self.outside.latest("it", owner, self.read, max_age=max_age, **more)

    async def next_key(self) -> Key:
        key = await self.queue.get()
        self.queue.done(key)
        return key


async def test_the_first_question_has_no_answer_and_its_owner_is_called_when_it_comes() -> None:
    bench = Bench()
    assert bench.latest() is None
    assert bench.latest() is None
    assert await bench.next_key() == JOB
    assert bench.latest() == Reading(at(1), 1)
    assert bench.reads == 1, "asking twice reads once"


async def test_an_old_answer_is_given_at_once_and_read_again_behind() -> None:
    bench = Bench()
    bench.latest(max_age=15)
    await bench.next_key()
    await asyncio.sleep(14)
    bench.latest(max_age=15)
    await asyncio.sleep(5)
    assert bench.reads == 1, "not older than 15 s when asked"
    assert bench.latest(max_age=15) == Reading(at(1), 1)
    await bench.next_key()
    assert bench.latest(max_age=15) == Reading(at(21), 2)


async def test_an_answer_without_an_age_is_read_once() -> None:
    bench = Bench()
    bench.latest(max_age=math.inf)
    await asyncio.sleep(1_000_000)
    assert bench.latest(max_age=math.inf) == Reading(at(1), 1)
    assert bench.reads == 1


async def test_a_failing_read_backs_off_up_to_a_minute_and_calls_its_owner_each_time() -> None:
    bench = Bench()
    bench.error = OSError("no route")
    bench.latest(max_age=math.inf)
    came: list[datetime] = []
    while len(came) < 9:
        await bench.next_key()
        reading = bench.latest(max_age=math.inf)
        assert reading
        assert reading.error is bench.error
        if reading.at not in came:
            came.append(reading.at)
    gaps = [(after - before).total_seconds() for before, after in pairwise(came)]
    assert gaps == [2, 3, 5, 9, 17, 33, 61, 61], "the pause, and a second for the read"

    bench.error = None
    while (reading := bench.latest(max_age=math.inf)) and reading.error:
        await bench.next_key()
    assert reading == Reading(now(), 10)


async def test_a_hung_read_ends_with_its_timeout_and_says_so() -> None:
    bench = Bench()

    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    assert bench.outside.latest("hung", JOB, hang, max_age=5, timeout=10) is None
    assert await bench.next_key() == JOB
    reading = bench.outside.latest("hung", JOB, hang, max_age=5, timeout=10)
    assert reading
    assert reading.at == at(10)
    assert str(reading.error) == "no answer within 10 s"


async def test_hung_reads_of_one_kind_do_not_delay_another() -> None:
    bench = Bench()

    async def hang() -> int:
        await asyncio.Event().wait()
        return 0

    for i in range(3 * SLOTS):
        bench.outside.latest(i, ROLLOUT, hang, max_age=5, timeout=1000)
    bench.latest(owner=JOB)
    assert await bench.next_key() == JOB
    assert now() == at(1)
    await bench.outside.close()


async def test_reads_of_one_kind_are_bounded() -> None:
    bench = Bench()
    active = most = 0

    async def read() -> int:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(1)
        active -= 1
        return 0

    for i in range(5 * SLOTS):
        bench.outside.latest(i, JOB, read, max_age=5)
    await asyncio.sleep(100)
    assert most == SLOTS


async def test_what_a_gone_owner_asked_for_is_forgotten_and_its_reads_end() -> None:
    bench = Bench()
    bench.latest(owner=JOB)
    bench.outside.forget(JOB)
    await asyncio.sleep(10)
    assert bench.reads == 0
    assert len(bench.queue) == 0
    assert bench.latest(owner=JOB) is None


async def test_owners_do_not_share_answers() -> None:
    bench = Bench()
    bench.latest(owner=JOB)
    await bench.next_key()
    assert bench.latest(owner=ROLLOUT) is None


async def test_the_answer_that_was_not_asked_for_the_longest_makes_room() -> None:
    bench = Bench()
    read: Callable[[], Awaitable[int]] = bench.read
    for i in range(ANSWERS_LIMIT + 1):
        bench.outside.latest(i, JOB, read, max_age=math.inf)
        await asyncio.sleep(1)
    assert bench.outside.latest(1, JOB, read, max_age=math.inf) is not None
    assert bench.outside.latest(0, JOB, read, max_age=math.inf) is None


async def test_a_smaller_age_than_a_second_does_not_spin() -> None:
    bench = Bench()
    bench.latest(max_age=0)
    while now() < at(10):
        await bench.next_key()
        bench.latest(max_age=0)
        bench.queue.add_after(JOB, 0.1)
    assert bench.reads <= 6, "a second for each read, and a second before the next"
