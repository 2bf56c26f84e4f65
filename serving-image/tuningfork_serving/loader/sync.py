"""Makes the engine equal to the table, again and again.

What is loaded is asked from the engine at every turn and never remembered: an engine that restarted simply holds nothing and gets
everything again. A name is never reused for other bytes (the operator puts the digest into it), so equal names are equal adapters.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tuningfork.api.routes import AdapterEntry, AdapterState, AdapterTable, LoaderState
from tuningfork_serving.loader.engine import EngineAway, EngineClient, EngineError
from tuningfork_serving.loader.metrics import LoaderMetrics
from tuningfork_serving.loader.store import Folder, StoreError, fetch_adapter

logger = logging.getLogger("tuningfork.loader")
INTERVAL_SECONDS = 1.0
BACKOFF_SECONDS = (1.0, 60.0)
"""First and longest pause after a failed load of one adapter."""


class Turn(NamedTuple):
    """What one turn has to do."""

    load: list[AdapterEntry]
    unload: list[str]
    remove: list[str]
    """Local copies that nothing needs any more."""


def plan_turn(table: AdapterTable, held: Iterable[str], copies: Iterable[str]) -> Turn:
    """Required adapters first, then in the table's order; what is not in the table goes."""
    wanted = {entry.name: entry for entry in table.adapters}
    held = set(held)
    load = sorted((e for e in table.adapters if e.name not in held), key=lambda e: not e.required)
    unload = sorted(held - wanted.keys())
    return Turn(load, unload, sorted(set(copies) - wanted.keys() - held))


@dataclass
class _Trouble:
    message: str
    failures: int
    retry_at: float


@dataclass
class Sync:
    """The loop and what it knows."""

    engine: EngineClient
    directory: Path
    open_folder: Callable[[str], Folder]
    metrics: LoaderMetrics
    table: AdapterTable | None = None
    clock: Callable[[], float] = time.monotonic
    held: dict[str, str] | None = None
    """What the engine held when it was last asked; None when it did not answer."""
    _trouble: dict[str, _Trouble] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set_table(self, table: AdapterTable) -> None:
        self.table = table
        self._changed.set()

    def state(self) -> LoaderState:
        """What this pod's engine holds, and why it lacks what it lacks."""
        held = self.held or {}
        adapters = {name: AdapterState(state="Loaded") for name in held}
        for entry in self.table.adapters if self.table else []:
            trouble = self._trouble.get(entry.name)
            if entry.name not in held:
                failed = AdapterState(state="Failed", message=trouble.message) if trouble else None
                adapters[entry.name] = failed or AdapterState(state="Loading")
        return LoaderState(engine_up=self.held is not None, adapters=adapters)

    def ready(self) -> bool:
        """The engine answers and holds every required adapter."""
        if self.held is None or self.table is None:
            return False
        return all(entry.name in self.held for entry in self.table.adapters if entry.required)

    async def run(self) -> None:
        """For ever: asks the engine each second, and works off the table beside it; a long download delays no answer."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_engine())
            tasks.create_task(self._work())

    async def _watch_engine(self) -> None:
        while True:
            with suppress(EngineAway):
                await self.ask()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            with suppress(EngineAway):
                await self.turn()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), INTERVAL_SECONDS)

    async def ask(self) -> dict[str, str]:
        """What the engine holds at this moment."""
        try:
            held = await self.engine.adapters()
        except EngineAway as error:
            if self.held is not None:
                logger.warning("the engine does not answer: %s", error)
            self.held = None
            self.metrics.show([], [e.name for e in self.table.adapters] if self.table else [])
            raise
        self.held = held
        self.metrics.show(held, [e.name for e in self.table.adapters] if self.table else [])
        return held

    async def turn(self) -> None:
        """Unloads, loads and cleans up once."""
        held = await self.ask()
        if self.table is None:
            return
        turn = plan_turn(self.table, held, self._copies())
        for name in turn.unload:
            await self._unload(name)
        self._trouble = {e.name: self._trouble[e.name] for e in turn.load if e.name in self._trouble}
        for entry in turn.load:
            trouble = self._trouble.get(entry.name)
            if trouble is None or self.clock() >= trouble.retry_at:
                await self._load(entry)
            if self._changed.is_set():
                return  # a newer table may not want the rest
        for name in turn.remove:
            shutil.rmtree(self.directory / name, ignore_errors=True)

    async def _load(self, entry: AdapterEntry) -> None:
        started, copy = self.clock(), self.directory / entry.name
        try:
            if not copy.exists():
                await asyncio.to_thread(fetch_adapter, self.open_folder(entry.uri), entry.digest, copy)
            await self.engine.load(entry.name, copy)
        except (StoreError, EngineError) as error:
            self._remember(entry.name, str(error))
            return
        self._trouble.pop(entry.name, None)
        await self.ask()
        self.metrics.duration.observe(self.clock() - started)
        logger.info("loaded %s in %.1f s", entry.name, self.clock() - started)

    async def _unload(self, name: str) -> None:
        try:
            await self.engine.unload(name)
        except EngineError as error:
            logger.warning("cannot unload %s: %s", name, error)
            return
        logger.info("unloaded %s", name)
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def _remember(self, name: str, message: str) -> None:
        before = self._trouble.get(name)
        failures = before.failures + 1 if before else 1
        pause = min(BACKOFF_SECONDS[0] * 2 ** (failures - 1), BACKOFF_SECONDS[1])
        if before is None or before.message != message:
            logger.warning("cannot load %s: %s", name, message)
        self._trouble[name] = _Trouble(message, failures, self.clock() + pause)

    def _copies(self) -> list[str]:
        return [path.name for path in self.directory.iterdir() if not path.name.startswith(".")]
