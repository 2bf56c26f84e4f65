"""Leader election by a Lease: one replica reconciles, the others are warm.

Another's Lease counts as over when it has not changed for its duration *as we saw it*, by our own clock; clocks of two nodes are
never compared. Who holds it renews every two seconds and gives up after seven without success, three before anybody else may begin.
Giving up means the end of the process: stopping every worker in time cannot be proven, ending can. A graceful end releases the
Lease, so that the next holder starts at once. kopf's peering was rejected: it is advisory and lets two operators run.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, NoReturn

from tuningfork.control.clock import micro_time
from tuningfork.control.health import Heartbeats
from tuningfork.planning.plan import Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes, Resource

logger = logging.getLogger(__name__)

LEASES: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")

DURATION_SECONDS: Final = 10
RENEW_DEADLINE_SECONDS: Final = 7
RETRY_SECONDS: Final = 2
"""Fail-over after a kill takes at most duration + retry = 12 s, a hand-over at most retry."""

HEARTBEAT_SECONDS: Final = 60
"""Both loops come round every two seconds, with a request of at most 30."""


class Lease:
    """``on_lost`` ends the process."""

    def __init__(
        self,
        kube: Kubernetes,
        namespace: str,
        name: str,
        identity: str,
        *,
        now: Callable[[], datetime],
        on_lost: Callable[[], NoReturn],
        heartbeats: Heartbeats,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._now = now
        self._on_lost = on_lost
        self._heartbeats = heartbeats
        self._seen: tuple[object, float] = (None, 0.0)
        self._held_until = float("-inf")
        self._released = False
        self._one_at_a_time = asyncio.Lock()
        self.holder = ""
        """Identity of whoever holds it, as last seen."""

    def held(self) -> bool:
        """Whether we may write: true for the Lease's duration after the last renewal, whatever happened since."""
        return not self._released and _time() < self._held_until

    async def acquire(self) -> None:
        """Waits until the Lease is ours."""
        while not await self._try(f"acquire Lease {self._name}"):
            self._heartbeats.beat("lease", HEARTBEAT_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
        logger.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renews until it cannot; then it is lost."""
        while not self._released:
            self._heartbeats.beat("lease", HEARTBEAT_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
            deadline = self._held_until - DURATION_SECONDS + RENEW_DEADLINE_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    while not await self._try(f"renew Lease {self._name}"):
                        if self.holder != self._identity:
                            break  # taken by another
                        await asyncio.sleep(RETRY_SECONDS / 4)
                    else:
                        continue
            logger.critical("the Lease is lost to %s: ending before anybody else begins", self.holder or "the clock")
            self._on_lost()

    async def release(self) -> None:
        """Lets the next holder begin at once."""
        if not self.held():
            return
        self._released = True
        async with self._one_at_a_time:
            with suppress(errors.ProviderError):
                await self._give_up()

    async def _give_up(self) -> None:
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        if lease["spec"].get("holderIdentity") == self._identity:
            lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(self._now())}
            await self._kube.replace(LEASES, lease)
            logger.info("the Lease is released")

    async def _try(self, what: str) -> bool:
        """Takes or renews the Lease; whether it is ours now."""
        asked = _time()
        try:
            async with self._one_at_a_time:
                if self._released or not await self._take():
                    return False
        except errors.ProviderError as error:
            logger.warning("cannot %s: %s", what, error)
            return False
        self.holder = self._identity
        self._held_until = asked + DURATION_SECONDS
        return True

    async def _take(self) -> bool:
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
        except errors.NotFoundError:
            metadata = {"namespace": self._namespace, "name": self._name}
            lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            return await self._won(self._kube.create(LEASES, lease | {"spec": self._claim({})}))
        spec = lease["spec"]
        self.holder = spec.get("holderIdentity") or ""
        if self.holder not in ("", self._identity) and not self._is_over(spec):
            return False
        return await self._won(self._kube.replace(LEASES, lease | {"spec": self._claim(spec)}))

    async def _won(self, write: Awaitable[Manifest]) -> bool:
        try:
            await write
        except (errors.ConflictError, errors.AlreadyExistsError):
            return False  # somebody was faster; the next look says who
        return True

    def _is_over(self, spec: Manifest) -> bool:
        """Whether nobody has renewed it for its duration, by our clock."""
        state = (spec.get("holderIdentity"), spec.get("renewTime"))
        if state != self._seen[0]:
            self._seen = (state, _time())
        return _time() - self._seen[1] >= float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)

    def _claim(self, spec: Manifest) -> Manifest:
        at = micro_time(self._now())
        ours = spec.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": at,
            "acquireTime": spec.get("acquireTime", at) if ours else at,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (0 if ours else 1),
        }


def _time() -> float:
    return asyncio.get_running_loop().time()
