"""The decisions of one pass, in the making.

The steps of `plan_rollout` fill a draft in order; each looks at what was observed and at what the steps before it decided. It is the one
mutable value of the planner and never leaves it. ``old`` is the status that was written down: shares rise only to what stands
there, so that no crash between two writes can put a share on the routers that status does not know of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tuningfork.api import timestamp
from tuningfork.api.rollout import (
    CandidateStatus,
    FailedVersion,
    MetricStatus,
    RolloutReason,
    TrackStatus,
    VersionRef,
)
from tuningfork.planning.plan import Event
from tuningfork.planning.rollout.observed import RolloutObserved

FAILED_KEPT = 10
"""Entries of status.failed."""


class Obstacle(NamedTuple):
    """Why what the spec asks for is not reached."""

    reason: RolloutReason
    message: str


STALLING = frozenset(
    {
        RolloutReason.RolledBack,
        RolloutReason.Aborted,
        RolloutReason.PreviouslyFailed,
        RolloutReason.ProgressDeadlineExceeded,
        RolloutReason.VersionUnusable,
        RolloutReason.DuplicateModel,
    }
)
"""Obstacles that only a person removes."""


@dataclass
class Draft:
    """What this pass decided so far."""

    now: datetime
    hash: str
    stable: VersionRef | None
    previous: VersionRef | None
    candidate: CandidateStatus | None
    metrics: list[MetricStatus]
    failed: list[FailedVersion]
    handled: dict[str, str]
    tracks: list[TrackStatus] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    soon: list[float] = field(default_factory=list)
    """Seconds after which something can change by time alone."""

    @classmethod
    def of(cls, observed: RolloutObserved, hash_: str, now: datetime) -> "Draft":
        old = observed.status
        return cls(
            now=now,
            hash=hash_,
            stable=old.stable,
            previous=old.previous,
            candidate=old.candidate,
            metrics=list(old.metrics),
            failed=list(old.failed),
            handled=dict(old.handled),
        )

    @property
    def at(self) -> str:
        return timestamp(self.now)

    def because(self, sentence: str) -> None:
        """Notes a decision for log and history."""
        self.why.append(sentence)

    def blocked(self, reason: RolloutReason, message: str) -> None:
        self.obstacles.append(Obstacle(reason, message))

    def normal(self, reason: str, message: str) -> None:
        self.events.append(Event("Normal", reason, message))
        self.because(message)

    def warning(self, reason: str, message: str) -> None:
        self.events.append(Event("Warning", reason, message))
        self.because(message)

    def metrics_of(self, subject: str) -> Mapping[str, MetricStatus]:
        return {m.name: m for m in self.metrics if m.subject == subject}

    def failure_of(self, ref: VersionRef) -> FailedVersion | None:
        """The record of this content's failure with the present steps and analysis."""
        found = (
            f for f in reversed(self.failed) if (f.version, f.digest, f.hash) == (ref.version, ref.digest, self.hash)
        )
        return next(found, None)

    def record_failure(
        self, ref: VersionRef, reason: RolloutReason, message: str, first_failure: datetime | None = None
    ) -> None:
        entry = FailedVersion(
            version=ref.version,
            digest=ref.digest,
            hash=self.hash,
            reason=reason.name,
            message=message,
            at=self.at,
            first_failure_at=timestamp(first_failure) if first_failure else self.at,
        )
        self.failed = [*self.failed, entry][-FAILED_KEPT:]
        self.warning(reason.name, f"{ref.version}: {message}; its users are back on stable")
