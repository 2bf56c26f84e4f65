"""What shall exist for a Rollout: the steps of one pass, in order.

Measurements first, because a failure outranks everything; then commands and the walk; then the pins, which make room for the candidate;
then the tables that follow from both, the objects that carry them, and the status that tells all of it. Pure: time is an argument.
"""

from datetime import datetime

from tuningfork.api import Rollout, seconds
from tuningfork.api.rollout import RolloutReason
from tuningfork.planning.plan import Plan
from tuningfork.planning.rollout.analysis import build_subjects, measure, watched_metrics
from tuningfork.planning.rollout.children import build_children
from tuningfork.planning.rollout.draft import STALLING, Draft, Obstacle
from tuningfork.planning.rollout.observed import EnginePod, RolloutObserved, RouterPod
from tuningfork.planning.rollout.routes import build_adapters, build_routes
from tuningfork.planning.rollout.status import build_stalled_status, build_status
from tuningfork.planning.rollout.tracks import place_pins, place_production
from tuningfork.planning.rollout.versions import walk_hash
from tuningfork.planning.rollout.walk import walk

__all__ = ["EnginePod", "RolloutObserved", "RouterPod", "build_subjects", "plan_rollout", "watched_metrics"]

SOON = 1.0
"""Seconds between two looks while something is under way; pods are asked again this often."""
STEADY = 15.0
"""Seconds between two looks at a Rollout where nothing happens."""
AT_ONCE = 0.05
"""A decision was written down; the next pass carries it out."""


def plan_rollout(observed: RolloutObserved, now: datetime) -> Plan:
    """One pass."""
    draft = Draft.of(observed, walk_hash(observed.rollout.spec), now)
    if older := _older_sibling(observed):
        return _duplicate(observed, draft, older)
    if observed.rollout.status and not observed.asked:
        return Plan(why=("the pods have not been asked yet, and what is unknown is not reported as down",))
    measure(observed, draft)
    walk(observed, draft)
    pins = place_pins(observed, draft)
    routes = build_routes(observed, draft, pins)
    adapters = build_adapters(observed, draft, pins, routes)
    if routes.stable:
        others = sum(p.weight for p in routes.pins) + (routes.candidate.weight if routes.candidate else 0)
        place_production(observed, draft, routes.stable.version, 100 - others)
    status = build_status(observed, draft, routes)
    return Plan(
        apply=build_children(observed, routes, adapters),
        status=status.dump(),
        events=tuple(draft.events),
        requeue_after=_next_look(observed, draft, busy=not status.acknowledged or _is_under_way(draft)),
        why=tuple(draft.why),
    )


def _is_under_way(draft: Draft) -> bool:
    return any(obstacle.reason not in STALLING for obstacle in draft.obstacles)


def _older_sibling(observed: RolloutObserved) -> Rollout | None:
    """Who serves the same model name already: the older one wins, then the name."""

    def age(rollout: Rollout) -> tuple[str, str]:
        return rollout.metadata.creation_timestamp or "", rollout.metadata.name

    same = [s for s in observed.siblings if s.spec.model == observed.rollout.spec.model]
    return next((s for s in same if age(s) < age(observed.rollout)), None)


def _duplicate(observed: RolloutObserved, draft: Draft, older: Rollout) -> Plan:
    message = (
        f"Rollout {older.metadata.name} serves the model {older.spec.model} in this namespace already;"
        " delete one of the two or give this one another spec.model (in a new Rollout)"
    )
    obstacle = Obstacle(RolloutReason.DuplicateModel, message)
    return Plan(status=build_stalled_status(observed, draft, obstacle).dump(), why=(message,))


def _next_look(observed: RolloutObserved, draft: Draft, *, busy: bool) -> float:
    """When time alone can change something, at the latest."""
    if draft.events:
        return AT_ONCE
    looks = [SOON if busy else STEADY, *(s for s in draft.soon if s > 0)]
    if observed.status.stable and observed.rollout.spec.analysis.metrics:
        looks.append(seconds(observed.rollout.spec.analysis.interval))
    return max(AT_ONCE, min(looks))
