"""The list beside the watch: completes the store at start, and now and then makes it equal to the cluster.

A watch alone is not enough. kopf does not say when its first list is complete, and a planner that sees a parent without its children
would think them lost; so nothing is reconciled before `Lister.sync` has listed everything once. Later a watch can miss what was deleted
while its resourceVersion expired (410); the periodic list removes that and adds what was missed.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tuningfork.control.controller import Resource
from tuningfork.control.health import Heartbeats
from tuningfork.control.store import MemoryStore
from tuningfork.planning.plan import Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import CLUSTER_WIDE, Kubernetes

logger = logging.getLogger(__name__)

PRUNE_SECONDS: Final = 300
"""Between two lists: a lost deletion shows within five minutes, for one list of each resource."""

RETRY_SECONDS: Final = 2
LIST_SECONDS: Final = 600
"""A list of everything that takes longer is stuck."""


class Lister:
    """No ``namespaces`` means all; ``on_change`` is told every object that a list added, changed or removed."""

    def __init__(
        self,
        kube: Kubernetes,
        store: MemoryStore,
        selectors: Mapping[Resource, str | None],
        namespaces: Sequence[str],
        on_change: Callable[[Manifest], None],
        heartbeats: Heartbeats,
    ) -> None:
        self._kube = kube
        self._store = store
        self._selectors = selectors
        self._namespaces = tuple(namespaces) or (None,)
        self._on_change = on_change
        self._heartbeats = heartbeats

    async def sync(self) -> None:
        """Lists everything once, however long the API server is away."""
        for resource, label in self._selectors.items():
            while True:
                try:
                    await self._list(resource, label)
                    break
                except errors.NotFoundError as error:
                    raise errors.PermanentError(_not_served(resource)) from error
                except errors.ProviderError as error:
                    logger.warning("waiting for the Kubernetes API: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)

    async def run(self, interval: float = PRUNE_SECONDS) -> None:
        """Lists everything again and again."""
        while True:
            self._heartbeats.beat("prune", interval + LIST_SECONDS)
            await asyncio.sleep(interval)
            for resource, label in self._selectors.items():
                try:
                    await self._list(resource, label)
                except errors.ProviderError as error:
                    logger.warning("prune: %s", error)

    async def _list(self, resource: Resource, label: str | None) -> None:
        for namespace in self._namespaces if resource.plural not in CLUSTER_WIDE else (None,):
            items, as_of = await self._kube.list(resource, label or "", namespace or "")
            for obj in self._store.reconcile(resource.kind, items, int(as_of), namespace):
                self._on_change(obj)


def _not_served(resource: Resource) -> str:
    return (
        f"the API server does not know {resource.plural} in {resource.api_version}: install the CRDs of this version"
        " (folder crds/ of the chart), then start the operator again"
    )
