"""Kubernetes Events about our objects: said once, then counted.

An Event's name is made from what it says, so that the same sentence about the same object is one Event with a count, also after the
operator was restarted. Events are a courtesy: an error here is logged for whoever looks for it, and never fails a reconcile.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple

from tuningfork.api._meta import FIELD_MANAGER
from tuningfork.control.clock import rfc3339
from tuningfork.planning.plan import Event, Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes, Resource

logger = logging.getLogger(__name__)

EVENTS: Final = Resource("v1", "Event", "events")

REPEAT_SECONDS: Final = 60
"""The same Event is counted up at most this often: a fault that repeats every second must not load the API server too."""

REMEMBERED: Final = 4096
"""Events whose last time is remembered; a forgotten one is only counted a little too early."""


class _Said(NamedTuple):
    at: datetime
    times: int


class EventRecorder:
    """Writes Events."""

    def __init__(self, kube: Kubernetes, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._now = now
        self._said: OrderedDict[str, _Said] = OrderedDict()

    async def record(self, parent: Manifest, event: Event) -> None:
        at = self._now()
        manifest = build_event(parent, event, at)
        name = manifest["metadata"]["name"]
        said = self._said.get(name)
        if said and (at - said.at).total_seconds() < REPEAT_SECONDS:
            return
        self._said[name] = _Said(at, said.times if said else 0)
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        try:
            self._said[name] = _Said(at, await self._write(manifest, said.times if said else 0))
        except errors.ProviderError as error:
            logger.debug("event %s was not written: %s", event.reason, error)

    async def _write(self, manifest: Manifest, count: int) -> int:
        """How often it has been said now. Reading Events is no right that the operator has: a patch's answer tells, too."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        again = {"lastTimestamp": manifest["lastTimestamp"]}
        if not count:
            with suppress(errors.AlreadyExistsError):
                await self._kube.create(EVENTS, manifest)
                return 1
            count = int((await self._kube.patch(EVENTS, namespace, name, again)).get("count") or 1)
        try:
            await self._kube.patch(EVENTS, namespace, name, again | {"count": count + 1})
        except errors.NotFoundError:  # Events live for an hour
            await self._kube.create(EVENTS, manifest)
            return 1
        return count + 1


def build_event(parent: Manifest, event: Event, at: datetime) -> Manifest:
    """A core/v1 Event: `kubectl describe` shows it under the object."""
    metadata = parent["metadata"]
    said = "\0".join([metadata["uid"], event.type, event.reason, event.message])
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": parent["apiVersion"],
            "kind": parent["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": errors.cut(event.message),
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": rfc3339(at),
        "lastTimestamp": rfc3339(at),
        "count": 1,
    }
