"""The engine pods: found by DNS, asked each second what they hold, chosen by fewest requests on the way.

A Service would spread requests over pods that do not hold the adapter. Endpoints could be watched instead, but DNS also works when
the API server is away, and the loaders must be asked anyway: only they know what an engine really holds.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from pydantic import ValidationError

from tuningfork.api.routes import ENGINE_PORT, LOADER_PORT, LoaderState

logger = logging.getLogger("tuningfork.router")
INTERVAL_SECONDS = 1.0
POLL_TIMEOUT_SECONDS = 2.0
FRESH_SECONDS = 5.0
"""A pod whose loader was silent for longer is used only when no other holds the adapter: its sidecar may be gone, its engine not."""


@dataclass(frozen=True)
class Address:
    """Where a pod's two servers are."""

    host: str
    engine_port: int = ENGINE_PORT
    loader_port: int = LOADER_PORT

    @classmethod
    def parse(cls, text: str) -> "Address":
        """``host:port`` or ``host:port:loader port``; for laptops and tests."""
        host, *ports = text.split(":")
        return cls(host, *map(int, ports))


@dataclass(eq=False)
class Pod:
    """One engine."""

    address: Address
    adapters: frozenset[str] = frozenset()
    """Loaded, as its loader last said."""
    engine_up: bool = False
    answered: float = float("-inf")
    """When its loader last answered, monotonic."""
    suspect: bool = False
    """A request failed to reach it since."""
    outstanding: int = 0
    missing: set[str] = field(default_factory=set)
    """Adapters that it denied since."""

    def url(self, path: str) -> str:
        return f"http://{self.address.host}:{self.address.engine_port}{path}"

    def holds(self, adapter: str) -> bool:
        return adapter in self.adapters and adapter not in self.missing

    def trusted(self, now: float) -> bool:
        return not self.suspect and now - self.answered <= FRESH_SECONDS


class Backends:
    """All pods."""

    def __init__(self, session: aiohttp.ClientSession, fixed: Iterable[Address] = ()) -> None:
        self._session = session
        self._fixed = list(fixed)
        self._pods = {address: Pod(address) for address in self._fixed}

    @property
    def pods(self) -> list[Pod]:
        return list(self._pods.values())

    def choose(self, adapter: str, exclude: Collection[Pod] = ()) -> Pod | None:
        """The pod with the fewest requests on the way among those that hold the adapter."""
        now = time.monotonic()
        holding = [pod for pod in self._pods.values() if pod not in exclude and pod.holds(adapter)]
        usable = [pod for pod in holding if pod.trusted(now)] or holding
        return min(usable, key=lambda pod: (pod.outstanding, random.random()), default=None)  # noqa: S311 - a tie

    async def run(self, service: Callable[[], str | None]) -> None:
        """For ever: finds the pods and asks each what it holds."""
        while True:
            name = service()
            if name and not self._fixed:
                await self._resolve(name)
            await asyncio.gather(*(self._poll(pod) for pod in self.pods))
            await asyncio.sleep(INTERVAL_SECONDS)

    async def _resolve(self, name: str) -> None:
        """Pods by A records. When DNS is away the known ones stay: their loaders tell who is alive."""
        with suppress(socket.gaierror):
            found = await asyncio.get_running_loop().getaddrinfo(name, ENGINE_PORT, type=socket.SOCK_STREAM)
            addresses = {Address(f"[{item[4][0]}]" if ":" in str(item[4][0]) else str(item[4][0])) for item in found}
            self._pods = {address: self._pods.get(address) or Pod(address) for address in sorted(addresses, key=str)}

    async def _poll(self, pod: Pod) -> None:
        url = f"http://{pod.address.host}:{pod.address.loader_port}/adapters"
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=POLL_TIMEOUT_SECONDS)) as response:
                response.raise_for_status()
                state = LoaderState.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            if pod.answered > float("-inf") and not pod.suspect:
                logger.warning("loader of %s does not answer: %s", pod.address.host, type(error).__name__)
            pod.suspect = True
            return
        pod.adapters = frozenset(name for name, adapter in state.adapters.items() if adapter.state == "Loaded")
        pod.engine_up, pod.answered, pod.suspect, pod.missing = state.engine_up, time.monotonic(), False, set()
