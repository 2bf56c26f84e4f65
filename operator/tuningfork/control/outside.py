"""Slow reads beside the queue: whoever reconciles gets the latest answer at once, and is called again when a new one has come.

A hung Prometheus or S3 must not hold a worker, and must not hold the reads of another kind: each kind has its own slots. An
answer belongs to the object that asked for it and goes with it. Sharing answers between objects was rejected: it would have to be
said who still needs one, to save a few cheap requests.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from tuningfork.control.controller import Key, Reading
from tuningfork.control.queue import WorkQueue

T = TypeVar("T")
logger = logging.getLogger(__name__)

SLOTS: Final = 16
"""Reads at the same time, for one kind of owner. boto3 reads in threads; more than this only queues there."""

BACKOFF_LIMIT: Final = 60.0
"""Seconds; the pause after failures in a row doubles from 1 up to this."""

ANSWERS_LIMIT: Final = 256
"""Answers kept for one owner; the one that was not asked for the longest goes first."""

FRESHEST: Final = 1.0
"""Seconds; a smaller max_age is taken as this, since each answer enqueues its owner, who asks again."""


@dataclass
class _Answer:
    reading: Reading[Any] | None = None
    due: float = 0.0
    asked: float = 0.0
    failures: int = 0
    task: asyncio.Task[None] | None = None


class OutsideReads:
    """The `Outside` of the controllers."""

    def __init__(
        self,
        queue: WorkQueue[Key],
        now: Callable[[], datetime],
        on_read: Callable[[str], None] = lambda result: None,
    ) -> None:
        self._queue = queue
        self._now = now
        self._on_read = on_read
        self._answers: dict[Key, dict[Hashable, _Answer]] = defaultdict(dict)
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(SLOTS))

    def latest(
        self, name: Hashable, owner: Key, read: Callable[[], Awaitable[T]], *, max_age: float, timeout: float = 10
    ) -> Reading[T] | None:
        """See `tuningfork.control.controller.Outside`."""
        loop = asyncio.get_running_loop()
        answer = self._answers[owner].setdefault(name, _Answer())
        answer.asked = loop.time()
        if answer.task is None and (answer.reading is None or self._is_old(answer, max_age)):
            answer.task = loop.create_task(self._read(answer, name, owner, read, timeout), name=f"read {name}")
            self._make_room(owner)
        return answer.reading

    def forget(self, owner: Key) -> None:
        for answer in self._answers.pop(owner, {}).values():
            _cancel(answer)

    async def close(self) -> None:
        """Ends every read."""
        tasks = [answer.task for answers in self._answers.values() for answer in answers.values() if answer.task]
        for owner in list(self._answers):
            self.forget(owner)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    def _is_old(self, answer: _Answer, max_age: float) -> bool:
        """An error is old when its backoff is over, whatever age its owner accepts of a value."""
        assert answer.reading is not None
        age = 0.0 if answer.reading.error else max(max_age, FRESHEST)
        return asyncio.get_running_loop().time() >= answer.due + age

    async def _read(
        self, answer: _Answer, name: Hashable, owner: Key, read: Callable[[], Awaitable[T]], timeout: float
    ) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.0
        try:
            async with self._slots[owner.kind], asyncio.timeout(timeout):
                value = await read()
            answer.reading = Reading(at=self._now(), value=value)
            answer.failures = 0
            self._on_read("success")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            if isinstance(error, TimeoutError) and not str(error):
                error = TimeoutError(f"no answer within {timeout:g} s")
            pause = min(BACKOFF_LIMIT, 2.0**answer.failures)
            answer.failures = min(answer.failures + 1, 16)
            answer.reading = Reading(at=self._now(), error=error)
            self._on_read("error")
            logger.debug("%s/%s: read %s: %s", owner.namespace, owner.name, name, error)
        answer.due = loop.time() + pause
        answer.task = None
        self._queue.add(owner)
        if pause:
            self._queue.add_after(owner, pause)

    def _make_room(self, owner: Key) -> None:
        answers = self._answers[owner]
        if len(answers) > ANSWERS_LIMIT:
            oldest = min(answers, key=lambda name: answers[name].asked)
            _cancel(answers.pop(oldest))


def _cancel(answer: _Answer) -> None:
    if answer.task:
        answer.task.cancel()
