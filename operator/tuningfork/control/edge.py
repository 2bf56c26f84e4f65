"""Where kopf ends: it watches, and hands every event to one function. Nothing else of it is used.

kopf keeps the watch streams (resumption by resourceVersion, bookmarks, dead-stream detection, new credentials after a 401). Its create
and update handlers are not used, because they patch annotations onto objects; its indices are not, because they cost more than
linear time; its liveness endpoint is not, because it says nothing about our loops. Found in 1.45.2, and answered here or in `prune`:

- The label of a handler filters on the client. Only ``watching.label_selectors`` reaches the API server, in the list and in the
  watch, and it joins all selectors of a resource by AND. So a resource gets exactly one: the label that its watchers agree on, or
  LABEL_COMPONENT. Rejected: a watcher of our own for a resource with two labels, a second mechanism to understand and to test.
- Deletions during a 410 and its new list are lost, and nothing says when the first list is complete: `prune` lists before the
  first reconcile and now and then.
- A request that failed eight times ends the operator. Here it is repeated until the API server is back: an endless series of pauses.
- It takes over SIGTERM, and when it stops it cancels every task that is younger than itself: `run` sets its own signal handlers
  afterwards, and stops kopf last.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import kopf

from tuningfork.api._meta import LABEL_COMPONENT
from tuningfork.control.controller import Controller, Resource
from tuningfork.planning.plan import Manifest

RETRY_SECONDS: Final = 2
"""Pause between attempts to reach the API server."""

CONNECT_SECONDS: Final = 5
REQUEST_SECONDS: Final = 60
"""Of one list; a watch ends by its own rule (no bookmark for 70 s)."""

OnEvent = Callable[[Manifest, bool], None]
"""The object, and whether it is deleted."""


def selectors_of(controllers: Iterable[Controller]) -> dict[Resource, str | None]:
    """Every resource that must be watched, with the label that the API server selects by; None is all its objects."""
    labels: dict[Resource, set[str | None]] = {}
    for controller in controllers:
        labels.setdefault(controller.resource, set()).add(None)
        for watched in controller.watched:
            labels.setdefault(watched.resource, set()).add(watched.label)
    return {resource: _common(found) for resource, found in labels.items()}


def _common(labels: set[str | None]) -> str | None:
    if None in labels:
        return None
    return labels.pop() if len(labels) == 1 else LABEL_COMPONENT


async def watch(
    selectors: Mapping[Resource, str | None], namespaces: Sequence[str], on_event: OnEvent, *, stop: asyncio.Event
) -> None:
    """Runs until ``stop``; no namespaces means all."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_login)
    settings = _settings()
    for resource, label in selectors.items():
        group, _, version = resource.api_version.rpartition("/")
        kopf.on.event(group, version, resource.plural, registry=registry, id=resource.plural)(_handler(on_event))
        if label:
            settings.watching.label_selectors[group, version, resource.plural] = label
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = (
        True  # no watch of CRDs and namespaces: we know what we watch, and need no rights for more
    )
    settings.posting.enabled = False
    settings.networking.error_backoffs = itertools.repeat(RETRY_SECONDS)
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.trust_env = False
    settings.process.ultimate_exiting_timeout = None  # it would kill us while we still hand over
    logging.getLogger("kopf").setLevel(logging.WARNING)
    return settings


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The same choice as our own client makes."""
    if os.environ.get("KUBECONFIG"):
        return kopf.login_with_kubeconfig(**kwargs)
    return kopf.login_with_service_account(**kwargs)


def _handler(on_event: OnEvent) -> Callable[..., Any]:
    async def handle(event: Any, **_: Any) -> None:
        on_event(event["object"], event["type"] == "DELETED")

    return handle
