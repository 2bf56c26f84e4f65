"""A plan is a frozen value that explains itself.

``plan_<kind>(observed, now) -> Plan`` is a free function without I/O; `tuningfork.control.executor` carries a plan out. ``why`` has
one sentence per decision: it goes into the log and into a failing test's output.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Manifest = dict[str, Any]
"""A Kubernetes object as a raw dict."""


class ObjectRef(NamedTuple):
    """An object to delete. ``uid`` is a precondition, so that a successor of the same name survives."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


class Event(NamedTuple):
    """A Kubernetes Event about the object; emitted only after its status was written."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What shall happen to one object's world.

    The executor's order: delete, create, apply, then status, then events. Deleting first frees names and quota for what is created; status
    comes last so that it never claims what did not happen. NotFound on delete and AlreadyExists on create count as done.
    """

    delete: tuple[ObjectRef, ...] = ()
    create: tuple[Manifest, ...] = ()
    """Created once and never touched again: Jobs, ModelVersions."""
    apply: tuple[Manifest, ...] = ()
    """Server-side applied by our field manager, only when the observed object differs in a field we own."""
    status: Manifest | None = None
    """The whole status, or None to leave it; written only when it differs."""
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds until the object must be looked at again even if nothing changes."""
    why: tuple[str, ...] = field(default_factory=tuple)
