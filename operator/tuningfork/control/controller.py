"""What a kind must bring to take part in the control runtime, and what the runtime lends it.

A controller observes (from the store and from outside reads that never block), plans (pure), and the runtime executes. It never
waits for anything outside inside a reconcile.
"""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tuningfork.planning.plan import Manifest, Plan
from tuningfork.providers.kubernetes import Resource

__all__ = ["Controller", "Key", "Outside", "Reading", "Resource", "Store", "Watched"]

T = TypeVar("T")


class Key(NamedTuple):
    """What the workqueue holds: one parent object."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Watched:
    """A resource that is watched for a controller, only objects with ``label`` (None: all objects of the resource).

    The label is selected by the API server. Where controllers watch one resource by different labels, every such object must
    have `LABEL_COMPONENT` too, because a watch can select by one label or by all of several, never by any of them (see `edge`).
    """

    resource: Resource
    label: str | None
    keys: Callable[[Manifest], list[Key]]
    """Which parents an event of such an object concerns."""


class Store(Protocol):
    """The objects that the watches have seen; raw dicts, never changed in place."""

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None: ...

    def list(self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None) -> list[Manifest]:
        """Objects of a kind, by namespace and by exact labels, sorted by namespace and name."""
        ...


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The latest answer from outside: a value or an error, and when it came."""

    at: datetime
    value: T | None = None
    error: Exception | None = None


class Outside(Protocol):
    """Slow reads (S3, Prometheus, pods) beside the queue."""

    def latest(
        self, name: Hashable, owner: Key, read: Callable[[], Awaitable[T]], *, max_age: float, timeout: float = 10
    ) -> Reading[T] | None:
        """The latest answer at once, or None before the first.

        Older than ``max_age`` seconds (infinite: read once), it is read again in the background with bounded concurrency, and
        ``owner`` is enqueued when the answer has come. A failing read backs off up to 60 seconds.
        """
        ...

    def forget(self, owner: Key) -> None:
        """Drops all answers of an owner that is gone."""
        ...


class Controller(Protocol):
    """One kind's part."""

    resource: Resource
    """The parent."""
    watched: tuple[Watched, ...]
    """Children and references whose events concern parents of this kind."""

    def observe(self, parent: Manifest) -> Any:
        """Everything that the plan needs, from store and outside reads; must not block."""
        ...

    def plan(self, observed: Any, now: datetime) -> Plan:
        """Pure."""
        ...
