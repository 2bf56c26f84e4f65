"""The route table in force: lanes for requests, leases, and what the table means right now. Pure but for holding the table.

A lane is a version in one role; it is what a request is counted under. Testers are a slice of their own, which no analysis reads.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuningfork.api.rollout import Slice, TrackName
from tuningfork.api.routes import RouterState, RouteTable, RouteTarget, assign, bucket
from tuningfork_serving.openai import ApiError

TESTER = "tester"


@dataclass(frozen=True)
class Lane:
    """A version in one role."""

    target: RouteTarget
    track: str
    slice: str


class Routes:
    """The table and the questions that it answers; raises ValueError for a lease that is no time."""

    def __init__(self, table: RouteTable) -> None:
        self.table = table
        until = table.candidate.valid_until if table.candidate else None
        self._until = datetime.fromisoformat(until) if until else None
        if self._until and self._until.tzinfo is None:
            raise ValueError(f"candidate.validUntil: {until!r} has no time zone; write it like 2026-01-31T12:00:00Z")

    def candidate_valid(self, now: datetime) -> bool:
        """Whether the candidate's lease still runs."""
        return self._until is None or now < self._until

    def lane(self, model: str, user: str | None, now: datetime) -> Lane:
        """Where a request belongs. Raises the client's error: an unknown model, or nothing stable yet."""
        table = self.table
        if model == table.model:
            assigned = assign(table, user or secrets.token_hex(8), candidate_valid=self.candidate_valid(now))
            if assigned is None:
                raise ApiError(
                    503, f"{model} has no stable version yet; try again later", "server_error", code="not_ready"
                )
            return Lane(assigned.target, assigned.track, assigned.slice)
        name, _, key = model.rpartition("@")
        if name == table.model and key in table.testers:
            target = table.testers[key]
            return Lane(target, self._track_of(target.version), TESTER)
        raise ApiError(
            404,
            f"The model `{model}` does not exist; this endpoint serves `{table.model}`.",
            "invalid_request_error",
            param="model",
            code="model_not_found",
        )

    def fallback(self, lane: Lane) -> Lane | None:
        """Stable, for users of a candidate or pin that no engine answers for; nobody shall suffer from a rollout."""
        if lane.slice not in (Slice.CANDIDATE, Slice.PIN) or self.table.stable is None:
            return None
        return Lane(self.table.stable, TrackName.PRODUCTION, Slice.STABLE)

    def lanes(self) -> Iterator[Lane]:
        """Every lane that the table names, whatever its weight."""
        table = self.table
        if table.stable:
            yield Lane(table.stable, TrackName.PRODUCTION, Slice.STABLE)
            if table.candidate:
                yield Lane(table.stable, TrackName.PRODUCTION, Slice.BASELINE)
        for pin in table.pins:
            yield Lane(pin, pin.track, Slice.PIN)
        if table.candidate:
            yield Lane(table.candidate, table.candidate.track, Slice.CANDIDATE)

    def weights(self, now: datetime) -> dict[tuple[str, str], int]:
        """Per cent of the users by (version, track), leases considered; stable has what the others leave."""
        table, shares = self.table, dict[tuple[str, str], int]()
        rest = 100

        def give(version: str, track: str, weight: int) -> None:
            nonlocal rest
            shares[version, str(track)] = shares.get((version, str(track)), 0) + weight
            rest -= weight

        for pin in table.pins:
            give(pin.version, pin.track, pin.weight)
        if table.candidate:
            weight = table.candidate.weight if self.candidate_valid(now) and table.stable else 0
            give(table.candidate.version, table.candidate.track, weight)
        if table.stable:
            give(table.stable.version, TrackName.PRODUCTION, max(0, rest))
        return shares

    def state(self, now: datetime) -> RouterState:
        """What operators ask for."""
        effective: dict[str, int] = {}
        for (version, _), share in self.weights(now).items():
            effective[version] = effective.get(version, 0) + share
        return RouterState(generation=self.table.generation, effective=effective)

    def explain(self, user: str, now: datetime) -> dict[str, Any]:
        """Why a user gets what they get."""
        lane, candidate = self.lane(self.table.model, user, now), self.table.candidate
        return {
            "user": user,
            "generation": self.table.generation,
            "version": lane.target.version,
            "track": lane.track,
            "slice": lane.slice,
            "buckets": {
                **{str(pin.track): bucket(pin.salt, user) for pin in self.table.pins},
                **({"candidate": bucket(candidate.salt, user)} if candidate else {}),
            },
            "candidateValid": self.candidate_valid(now),
        }

    def _track_of(self, version: str) -> str:
        """The track that a version is on now, for a tester's request."""
        running = {lane.target.version: str(lane.track) for lane in self.lanes()}
        return running.get(version, "none")
