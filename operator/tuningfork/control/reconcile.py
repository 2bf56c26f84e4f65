"""The worker: takes a key, observes, plans, executes. The only place where an error is logged.

Every error means "again, later": the pause grows with each failure of the key. What somebody must change first (a missing
permission, a name taken by another's object) is also told as an Event on the object, because its owner reads no logs of ours.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

from tuningfork.control.controller import Controller, Key, Outside
from tuningfork.control.events import EventRecorder
from tuningfork.control.executor import Executor
from tuningfork.control.health import Heartbeats
from tuningfork.control.metrics import Metrics
from tuningfork.control.queue import ShutDownError, WorkQueue
from tuningfork.control.store import MemoryStore
from tuningfork.planning.plan import Event, Manifest
from tuningfork.providers import errors

logger = logging.getLogger(__name__)

STUCK_SECONDS = 300
"""A reconcile is stuck after this long; its requests end after 30 s each, and no plan has ten in a row that all hang."""


class Reconciler:
    """Reconciles keys; several workers share one. ``may_act`` says whether this replica still holds the Lease."""

    def __init__(
        self,
        controllers: Mapping[str, Controller],
        store: MemoryStore,
        queue: WorkQueue[Key],
        executor: Executor,
        outside: Outside,
        events: EventRecorder,
        metrics: Metrics,
        now: Callable[[], datetime],
        may_act: Callable[[], bool] = lambda: True,
        on_gone: Callable[[Key], None] = lambda key: None,
    ) -> None:
        self._controllers = controllers
        self._store = store
        self._queue = queue
        self._executor = executor
        self._outside = outside
        self._events = events
        self._metrics = metrics
        self._now = now
        self._may_act = may_act
        self._on_gone = on_gone

    async def work(self, name: str, heartbeats: Heartbeats) -> None:
        """One worker, until the queue is closed."""
        while True:
            try:
                key = await self._queue.get()
            except ShutDownError:
                return
            try:
                with heartbeats.busy(name, STUCK_SECONDS):
                    await self.handle(key)
            finally:
                self._queue.done(key)

    async def handle(self, key: Key) -> None:
        """Reconciles one key and decides when it comes back."""
        if not self._may_act():
            return
        started = time.perf_counter()
        result = await self._attempt(key)
        self._metrics.durations.labels(key.kind).observe(time.perf_counter() - started)
        self._metrics.reconciles.labels(key.kind, result).inc()
        if result in ("success", "gone"):
            self._queue.forgive(key)
        else:
            self._metrics.retries.inc()
            self._queue.retry(key)

    async def _attempt(self, key: Key) -> str:
        parent = self._store.get(*key)
        if parent is None:
            self._forget(key)
            return "gone"
        try:
            await self._reconcile(key, parent)
        except errors.ConflictError as error:
            logger.debug("%s: %s", _title(key), error)
            return "conflict"
        except errors.ProviderError as error:
            logger.warning("%s: %s", _title(key), error)
            await self._tell(key, error)
            await self._events.record(parent, Event("Warning", "ReconcileError", str(error)))
            return "permanent" if isinstance(error, errors.PermanentError) else "transient"
        except Exception:
            logger.exception("%s: this is a bug in the operator; the object is tried again", _title(key))
            return "bug"
        return "success"

    async def _tell(self, key: Key, error: errors.ProviderError) -> None:
        """An object whose children cannot be written must not look as if all went on; a single hiccup is no news."""
        live = self._store.get(*key)
        if live and (isinstance(error, errors.PermanentError) or self._queue.failures(key)):
            with suppress(errors.ProviderError):
                await self._executor.tell(live, str(error), self._now())

    async def _reconcile(self, key: Key, parent: Manifest) -> None:
        """An object that is being deleted is left alone: what it owns goes with it, and must not be made again meanwhile."""
        if parent["metadata"].get("deletionTimestamp"):
            return
        controller = self._controllers[key.kind]
        plan = controller.plan(controller.observe(parent), self._now())
        acted = await self._executor.execute(parent, plan)
        for sentence in plan.why:
            logger.log(logging.INFO if acted else logging.DEBUG, "%s: %s", _title(key), sentence)
        if plan.requeue_after is not None:
            self._queue.add_after(key, plan.requeue_after)

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        self._outside.forget(key)
        self._on_gone(key)


def _title(key: Key) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"
