"""What a person and a machine read of a Rollout: one phase, one sentence, conditions with reasons, and the history of the split.

Available says that stable serves, Ready that what the spec asks for is reached: after a rollback the first is True and the second False.
"""

from typing import Any

from tuningfork.api import RolloutStatus, parse_time
from tuningfork.api._meta import Condition, ConditionStatus, set_condition
from tuningfork.api.rollout import (
    Action,
    CandidateState,
    FailedVersion,
    RolloutCondition,
    RolloutPhase,
    RolloutReason,
    Slice,
    TrackState,
    Verdict,
    Weight,
)
from tuningfork.api.routes import RouteTable
from tuningfork.delivery.analysis import decide
from tuningfork.delivery.split import in_words, shares
from tuningfork.planning.rollout.candidate import within_rollback_window
from tuningfork.planning.rollout.draft import STALLING, Draft, Obstacle
from tuningfork.planning.rollout.observed import RolloutObserved
from tuningfork.planning.rollout.walk import position

HISTORY_KEPT = 32
"""Entries of status.history."""

_WAITING_FOR_A_PERSON = frozenset({RolloutReason.Paused, RolloutReason.WaitingForPromotion})

Statement = tuple[RolloutCondition, ConditionStatus, RolloutReason, str]


def build_status(observed: RolloutObserved, draft: Draft, routes: RouteTable) -> RolloutStatus:
    """The whole status."""
    acknowledged = routes == observed.table and observed.acknowledged(routes.generation)
    obstacle = _obstacle(observed, draft, acknowledged)
    weights = shares(routes)
    steps = observed.rollout.spec.strategy.steps
    candidate = draft.candidate
    return RolloutStatus(
        observed_generation=observed.rollout.metadata.generation,
        phase=_phase(observed, obstacle),
        message=_cut(obstacle.message if obstacle else f"{in_words(weights)}, as the spec asks"),
        conditions=_conditions(observed, draft, obstacle),
        stable=draft.stable,
        previous=draft.previous,
        candidate=candidate,
        tracks=sorted(draft.tracks, key=lambda t: t.name),
        weights=in_words(weights),
        step=f"{candidate.step + 1}/{len(steps)}" if candidate and candidate.weight else "",
        metrics=_kept_metrics(draft),
        failed=_measured_failures(draft, weights, acknowledged),
        history=_history(observed, draft, weights),
        route_generation=routes.generation,
        acknowledged=acknowledged,
        handled=draft.handled,
    )


def build_stalled_status(observed: RolloutObserved, draft: Draft, obstacle: Obstacle) -> RolloutStatus:
    """Of a Rollout that may not act at all: everything else stays as it was."""
    return observed.status.model_copy(
        update={
            "observed_generation": observed.rollout.metadata.generation,
            "phase": RolloutPhase.DEGRADED,
            "message": _cut(obstacle.message),
            "conditions": _conditions(observed, draft, obstacle),
        }
    )


def _stable_name(draft: Draft) -> str:
    return draft.stable.version if draft.stable else "nothing"


def _cut(message: str) -> str:
    return message if len(message) <= 1024 else message[:1021] + "..."


def _obstacle(observed: RolloutObserved, draft: Draft, acknowledged: bool) -> Obstacle | None:
    """The one that is shown: what only a person can remove, then what the walk waits for, then what is still starting."""
    for obstacle in draft.obstacles:
        if obstacle.reason in STALLING:
            return obstacle
    if draft.obstacles:
        return draft.obstacles[0]
    if draft.stable and not observed.serves:
        return Obstacle(RolloutReason.NotServing, f"{draft.stable.version}: no ready engine and router answer for it")
    if draft.stable and not observed.loaded_everywhere(draft.stable.adapter):
        return Obstacle(
            RolloutReason.Starting, f"{draft.stable.version}: {observed.load_problem(draft.stable.adapter)}"
        )
    if not acknowledged:
        return Obstacle(RolloutReason.Starting, "the routers are taking over the latest routes")
    return None


def _phase(observed: RolloutObserved, obstacle: Obstacle | None) -> RolloutPhase:
    if obstacle is None:
        return RolloutPhase.HEALTHY
    served_once = observed.status.phase is RolloutPhase.DEGRADED or _was_available(observed)
    if obstacle.reason in STALLING or (obstacle.reason is RolloutReason.NotServing and served_once):
        return RolloutPhase.DEGRADED
    return RolloutPhase.PAUSED if obstacle.reason in _WAITING_FOR_A_PERSON else RolloutPhase.PROGRESSING


def _was_available(observed: RolloutObserved) -> bool:
    conditions = observed.status.conditions
    return any(c.type == RolloutCondition.AVAILABLE and c.status is ConditionStatus.TRUE for c in conditions)


def _conditions(observed: RolloutObserved, draft: Draft, obstacle: Obstacle | None) -> list[Condition]:
    statements = [
        _ready(draft, obstacle),
        _reconciling(obstacle),
        _stalled(obstacle),
        _available(observed, draft),
        *_rollback_ready(observed, draft),
        _analyzed(observed, draft),
    ]
    stated = {statement[0] for statement in statements}
    conditions: list[dict[str, Any]] = [c.dump() for c in observed.status.conditions if c.type in stated]
    for type_, status, reason, message in statements:
        conditions = set_condition(
            conditions,
            type_,
            status,
            reason,
            message,
            generation=observed.rollout.metadata.generation,
            now=draft.at,
        )
    return [Condition.model_validate(c) for c in conditions]


def _ready(draft: Draft, obstacle: Obstacle | None) -> Statement:
    if obstacle:
        return RolloutCondition.READY, ConditionStatus.FALSE, obstacle.reason, obstacle.message
    message = f"{_stable_name(draft)} is production, as the spec asks"
    return RolloutCondition.READY, ConditionStatus.TRUE, RolloutReason.Reached, message


def _reconciling(obstacle: Obstacle | None) -> Statement:
    if obstacle and obstacle.reason not in STALLING:
        return RolloutCondition.RECONCILING, ConditionStatus.TRUE, obstacle.reason, obstacle.message
    reason = obstacle.reason if obstacle else RolloutReason.Reached
    return RolloutCondition.RECONCILING, ConditionStatus.FALSE, reason, ""


def _stalled(obstacle: Obstacle | None) -> Statement:
    if obstacle and obstacle.reason in STALLING:
        return RolloutCondition.STALLED, ConditionStatus.TRUE, obstacle.reason, obstacle.message
    reason = obstacle.reason if obstacle else RolloutReason.Reached
    return RolloutCondition.STALLED, ConditionStatus.FALSE, reason, ""


def _available(observed: RolloutObserved, draft: Draft) -> Statement:
    if observed.serves:
        return RolloutCondition.AVAILABLE, ConditionStatus.TRUE, RolloutReason.Serving, f"{_stable_name(draft)} serves"
    message = (
        f"{_stable_name(draft)}: no ready engine and router answer" if draft.stable else "no version is stable yet"
    )
    return RolloutCondition.AVAILABLE, ConditionStatus.FALSE, RolloutReason.NotServing, message


def _rollback_ready(observed: RolloutObserved, draft: Draft) -> list[Statement]:
    """While somebody walks the way back is stable, afterwards the version before, until its window ends."""
    target = draft.stable if draft.candidate else draft.previous if within_rollback_window(observed, draft) else None
    if target is None:
        return []
    type_ = RolloutCondition.ROLLBACK_READY
    if observed.loaded_everywhere(target.adapter):
        message = f"{target.version} is loaded on every replica"
        return [(type_, ConditionStatus.TRUE, RolloutReason.RollbackReady, message)]
    message = f"{target.version}: {observed.load_problem(target.adapter)}"
    return [(type_, ConditionStatus.FALSE, RolloutReason.RollbackNotReady, message)]


def _analyzed(observed: RolloutObserved, draft: Draft) -> Statement:
    """The worst of the candidate's and the pins' analyses; after a rollback, what failed."""
    subjects = [t.version for t in draft.tracks if t.slice is Slice.PIN and t.state is TrackState.SERVING]
    if draft.candidate:
        subjects.insert(0, draft.candidate.version)
    analysis = observed.rollout.spec.analysis
    outcomes = [decide(analysis, draft.metrics_of(s), draft.now) for s in subjects if draft.metrics_of(s)]
    failing = [
        m for m in draft.metrics if m.verdict is Verdict.FAIL and m.subject in {f.version for f in draft.failed[-1:]}
    ]
    type_ = RolloutCondition.ANALYZED
    if failing and not draft.candidate:
        return type_, ConditionStatus.FALSE, RolloutReason.MetricFailed, f"{failing[0].subject}: {failing[0].message}"
    if not outcomes:
        return type_, ConditionStatus.UNKNOWN, RolloutReason.NotAnalyzing, ""
    worst = next((o for o in outcomes if o.action is not Action.PASS), outcomes[0])
    passed = worst.action is Action.PASS
    return type_, ConditionStatus.TRUE if passed else ConditionStatus.UNKNOWN, worst.reason, worst.message


def _kept_metrics(draft: Draft) -> list[Any]:
    """Of everybody who serves, and of the last one that failed, so that its numbers can be read."""
    kept = {t.version for t in draft.tracks} | {f.version for f in draft.failed[-1:]}
    kept |= {ref.version for ref in (draft.stable, draft.candidate) if ref}
    return [m for m in draft.metrics if m.subject in kept]


def _measured_failures(draft: Draft, weights: dict[str, int], acknowledged: bool) -> list[FailedVersion]:
    """Notes how long it took, once every router has acknowledged routes without the version."""

    def measured(entry: FailedVersion) -> FailedVersion:
        if entry.seconds_to_zero is not None or not acknowledged or weights.get(entry.version):
            return entry
        since = parse_time(entry.first_failure_at or entry.at)
        return entry.model_copy(update={"seconds_to_zero": round((draft.now - since).total_seconds(), 1)})

    return [measured(entry) for entry in draft.failed]


def _history(observed: RolloutObserved, draft: Draft, weights: dict[str, int]) -> list[Weight]:
    history = observed.status.history
    if not weights or (history and history[-1].weights == weights):
        return list(history)
    why = _cut("; ".join(draft.why) or _last_why(observed, draft))
    return [*history, Weight(at=draft.at, weights=weights, why=why)][-HISTORY_KEPT:]


def _last_why(observed: RolloutObserved, draft: Draft) -> str:
    """Shares rise one pass after their decision; it is said again where they show."""
    candidate = draft.candidate
    if candidate and candidate.state is CandidateState.WALKING:
        return position(observed, candidate.version, candidate.step)
    if candidate:
        return f"{candidate.version} becomes stable"
    pins = [f"{t.version} on {t.name}" for t in draft.tracks if t.slice is Slice.PIN and t.weight]
    return f"{_stable_name(draft)} serves" + (f" beside {' and '.join(pins)}" if pins else "")
