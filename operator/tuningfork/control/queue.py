"""A keyed workqueue: what must be looked at, each key once and by one worker at a time.

A key that is added while it waits is one piece of work; added while it is handled, it waits again when its worker is done. That
is what makes a reconcile safe without locks. A failing key comes back after a growing pause of its own, so that one broken object
costs the others nothing. asyncio.Queue was rejected: it knows no keys, and a burst of 100 events would be 100 reconciles.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BACKOFF_FIRST: Final = 1.0
BACKOFF_LIMIT: Final = 300.0
"""Seconds; the pause doubles with each failure in a row, between these. Five minutes is what kubelet waits at most, too."""


class ShutDownError(Exception):
    """The queue hands out no more keys."""


class WorkQueue(Generic[K]):
    """Times are the event loop's; ``jitter`` draws from 0 to 1."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """As soon as a worker is free."""
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._running:
            self._offer(key)

    def add_after(self, key: K, delay: float) -> None:
        """After ``delay`` seconds; of several wishes the earliest counts, because looking too early does no harm."""
        if self._closed:
            return
        if delay <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer and timer.when() <= loop.time() + delay:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._fire, key)

    def retry(self, key: K) -> float:
        """After the key's own backoff: the seconds until then."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        ceiling = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** min(failures + 1, 16))
        delay = max(BACKOFF_FIRST, ceiling * (0.5 + 0.5 * self._jitter()))
        self.add_after(key, delay)
        return delay

    def failures(self, key: K) -> int:
        """Failures in a row until now."""
        return self._failures.get(key, 0)

    def forgive(self, key: K) -> None:
        """The key succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """The key's object is gone: nothing about it is kept."""
        self.forgive(key)
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def get(self) -> K:
        """The next key; it is the caller's until `done`."""
        while not self._waiting:
            if self._closed:
                raise ShutDownError
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                self._wake()  # a key that was meant for this worker is another's now
                raise
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._running.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker has finished with the key; was it added meanwhile, it waits again."""
        self._running.discard(key)
        if key in self._dirty:
            self._offer(key)

    def close(self) -> None:
        """No more keys: waiting ones stay undone, those being handled are finished by their workers."""
        self._closed = True
        self._waiting.clear()
        self._dirty.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._getters:
            self._wake()

    def _offer(self, key: K) -> None:
        self._waiting.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
