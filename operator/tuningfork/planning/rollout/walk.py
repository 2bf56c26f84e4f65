"""The walk of a candidate: when it may have weight, when it goes on, when it is given up.

spec names another version -> Waiting -> Walking, step by step -> Promoting -> stable
                                 |          |
                                 +----------+--> failed[]: weight 0, Git's spec left alone
"""

from datetime import datetime, timedelta

from tuningfork.api import parse_time, seconds, timestamp
from tuningfork.api.rollout import Action, CandidateState, CandidateStatus, Promotion, RolloutReason, VersionRef
from tuningfork.delivery.analysis import decide, is_step_proven, new_step
from tuningfork.planning.rollout import analysis
from tuningfork.planning.rollout.candidate import change, fail, follow_spec, is_way_back, obey, reference
from tuningfork.planning.rollout.commands import Command, ignored, take_commands
from tuningfork.planning.rollout.draft import Draft, Obstacle
from tuningfork.planning.rollout.observed import RolloutObserved

PRIMING_SECONDS = 10.0
"""Weight 0 before the first weight: two scrapes of 5 s, so that the first bad request is an increase and not a new series."""


def walk(observed: RolloutObserved, draft: Draft) -> None:
    """One pass of it."""
    commands = obey(observed, draft, take_commands(observed, draft))
    fitting = _fitting(commands, observed.status.candidate)
    for command in commands:
        if command not in fitting:
            ignored(draft, command)
    follow_spec(observed, draft)
    if draft.candidate:
        _advance(observed, draft, draft.candidate, {command.verb for command in fitting})


def held_seconds(candidate: CandidateStatus, now: datetime) -> float:
    """Hold time of the step so far."""
    running = (now - parse_time(candidate.held_since)).total_seconds() if candidate.held_since else 0.0
    return candidate.held_seconds + running


def _fitting(commands: list[Command], candidate: CandidateStatus | None) -> list[Command]:
    """The commands that speak of the step that status shows: what a person decided on."""
    if candidate is None or candidate.state is not CandidateState.WALKING:
        return []
    return [c for c in commands if (c.version, c.step) == (candidate.version, candidate.step)]


def _advance(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus, verbs: set[str]) -> None:
    if draft.stable is None:
        return _start_serving(observed, draft, candidate)
    if candidate.state is CandidateState.PROMOTING:
        return _finish_promotion(observed, draft, candidate)
    outcome = decide(observed.rollout.spec.analysis, draft.metrics_of(candidate.version), draft.now)
    if outcome.action is Action.FAIL:
        return fail(draft, candidate, RolloutReason.RolledBack, outcome.message, outcome.first_failure)
    if candidate.state is CandidateState.WAITING:
        return _become_ready(observed, draft, candidate, draft.stable)
    return _hold_step(observed, draft, candidate, verbs)


def _start_serving(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> None:
    """The first version: there is nothing to walk beside and nothing to fall back to."""
    if observed.loaded_everywhere(candidate.adapter):
        draft.stable = reference(candidate, draft.at)
        draft.candidate = None
        draft.normal("Serving", f"{candidate.version} is loaded on every replica and becomes stable")
    else:
        late = _is_late(observed, draft, candidate)
        reason = RolloutReason.ProgressDeadlineExceeded if late else RolloutReason.WaitingForReplicas
        draft.blocked(reason, f"{candidate.version}: {observed.load_problem(candidate.adapter)}")


def _become_ready(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus, stable: VersionRef) -> None:
    """Loaded everywhere, the way back proven, its series primed and the analysis awake: then the first weight."""
    spec = observed.rollout.spec
    candidate = _prime(observed, draft, candidate)
    if not observed.loaded_everywhere(candidate.adapter):
        problem = observed.load_problem(candidate.adapter)
        if _is_late(observed, draft, candidate):
            message = f"not ready within {spec.progress_deadline}: {problem}"
            return fail(draft, candidate, RolloutReason.ProgressDeadlineExceeded, message)
        return draft.blocked(RolloutReason.WaitingForReplicas, f"{candidate.version}: {problem}")
    if spec.paused:
        return draft.blocked(RolloutReason.Paused, f"{candidate.version} is ready; spec.paused is true")
    if is_way_back(observed, draft, candidate):
        return _promote(draft, candidate, "it was stable before, within rollbackWindow")
    if spec.strategy.promotion is Promotion.IMMEDIATE:
        return _promote(draft, candidate, "promotion is Immediate")
    if not observed.loaded_everywhere(stable.adapter):
        message = f"the way back is not ready: {stable.version}: {observed.load_problem(stable.adapter)}"
        return draft.blocked(RolloutReason.WaitingForReplicas, message)
    if not _is_primed(draft, candidate) or not analysis.is_watched(observed, draft, candidate.version):
        return draft.blocked(RolloutReason.Walking, f"{candidate.version} is ready; its series are primed at weight 0")
    outcome = decide(spec.analysis, draft.metrics_of(candidate.version), draft.now)
    if outcome.action is not Action.PASS:
        return draft.blocked(
            outcome.reason, f"{candidate.version} gets no weight while nobody sees it: {outcome.message}"
        )
    return _enter_step(observed, draft, candidate, 0)


def _is_late(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> bool:
    assert candidate.since is not None
    deadline = parse_time(candidate.since) + timedelta(seconds=seconds(observed.rollout.spec.progress_deadline))
    draft.soon.append((deadline - draft.now).total_seconds())
    return draft.now >= deadline


def _prime(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> CandidateStatus:
    """Notes when every router knew the candidate; they may while engines still load it."""
    table = observed.table
    known = table is not None and table.candidate is not None and table.candidate.adapter == candidate.adapter
    if candidate.primed_at is None and table and known and observed.acknowledged(table.generation):
        return change(draft, candidate, primed_at=draft.at)
    return candidate


def _is_primed(draft: Draft, candidate: CandidateStatus) -> bool:
    if candidate.primed_at is None:
        return False
    left = PRIMING_SECONDS - (draft.now - parse_time(candidate.primed_at)).total_seconds()
    draft.soon.append(left)
    return left <= 0


def _enter_step(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus, index: int) -> None:
    steps = observed.rollout.spec.strategy.steps
    step = steps[index]
    change(
        draft,
        candidate,
        state=CandidateState.WALKING,
        step=index,
        weight=step.weight,
        step_started_at=None,
        held_since=None,
        held_seconds=0.0,
        valid_until=_lease(observed, draft),
    )
    draft.metrics = new_step(draft.metrics, candidate.version)
    draft.normal("Step", f"{candidate.version} enters step {index + 1}/{len(steps)}: {step.weight} % on {step.track}")
    draft.blocked(RolloutReason.Walking, position(observed, candidate.version, index))


def position(observed: RolloutObserved, version: str, index: int) -> str:
    """Where a walk is, in words."""
    steps = observed.rollout.spec.strategy.steps
    return f"{version} on step {index + 1}/{len(steps)}: {steps[index].weight} % on {steps[index].track}"


def _promote(draft: Draft, candidate: CandidateStatus, why: str) -> None:
    """Written down first; the routers get it in the next pass."""
    change(draft, candidate, state=CandidateState.PROMOTING, held_since=None)
    draft.normal("Promoting", f"{candidate.version} becomes stable: {why}")
    draft.blocked(RolloutReason.Walking, f"{candidate.version} is being promoted")


def _finish_promotion(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> None:
    table = observed.table
    flipped = table is not None and table.stable is not None and table.stable.adapter == candidate.adapter
    if table and flipped and observed.acknowledged(table.generation):
        draft.previous = draft.stable.model_copy(update={"since": draft.at}) if draft.stable else None
        draft.stable = reference(candidate, draft.at)
        draft.candidate = None
        draft.normal("Promoted", f"{candidate.version} is stable")
    else:
        draft.blocked(RolloutReason.Walking, f"{candidate.version} is being promoted")


def _hold_step(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus, verbs: set[str]) -> None:
    candidate = _keep_clock(observed, draft, candidate)
    steps = observed.rollout.spec.strategy.steps
    is_last = candidate.step + 1 >= len(steps)
    ready = observed.loaded_everywhere(candidate.adapter)
    if not ready:  # what could not act now must not act later on something that its author did not see
        for verb in sorted(verbs):
            ignored(draft, Command(verb, candidate.version, candidate.step), observed.load_problem(candidate.adapter))
        verbs = set()
    if "promote-full" in verbs:
        return _promote(draft, candidate, "by command")
    if "promote" not in verbs and (problem := _what_is_missing(observed, draft, candidate)):
        return draft.blocked(*problem)
    if not ready:
        problem_text = f"{candidate.version}: {observed.load_problem(candidate.adapter)}"
        return draft.blocked(RolloutReason.WaitingForReplicas, problem_text)
    if is_last:
        return _promote(draft, candidate, "by command" if verbs else "every step passed without evidence of harm")
    return _enter_step(observed, draft, candidate, candidate.step + 1)


def _keep_clock(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> CandidateStatus:
    """Hold time runs while every router has the weight, the lease holds, and nobody asked to stand still."""
    lapsed = candidate.valid_until is not None and draft.now > parse_time(candidate.valid_until)
    if lapsed and candidate.step_started_at:
        draft.warning("LeaseExpired", f"nobody watched {candidate.version}; its step begins again")
        draft.metrics = new_step(draft.metrics, candidate.version)
        candidate = change(draft, candidate, step_started_at=None, held_since=None, held_seconds=0.0)
    if analysis.is_watched(observed, draft, candidate.version):
        candidate = change(draft, candidate, valid_until=_lease(observed, draft, candidate.valid_until))
    if lapsed or not _is_in_force(observed, candidate):
        return candidate
    if candidate.step_started_at is None:
        draft.metrics = new_step(draft.metrics, candidate.version)
        candidate = change(draft, candidate, step_started_at=draft.at)
    if observed.rollout.spec.paused or _outcome_action(observed, draft, candidate) is Action.PAUSE:
        return change(draft, candidate, held_seconds=held_seconds(candidate, draft.now), held_since=None)
    return candidate if candidate.held_since else change(draft, candidate, held_since=draft.at)


def _is_in_force(observed: RolloutObserved, candidate: CandidateStatus) -> bool:
    table = observed.table
    if table is None or table.candidate is None or not observed.acknowledged(table.generation):
        return False
    return (table.candidate.adapter, table.candidate.weight) == (candidate.adapter, candidate.weight)


def _outcome_action(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> Action:
    return decide(observed.rollout.spec.analysis, draft.metrics_of(candidate.version), draft.now).action


def _what_is_missing(observed: RolloutObserved, draft: Draft, candidate: CandidateStatus) -> Obstacle | None:
    """What this step still waits for; None when it is over."""
    spec = observed.rollout.spec
    where = position(observed, candidate.version, candidate.step)
    outcome = decide(spec.analysis, draft.metrics_of(candidate.version), draft.now)
    if spec.paused:
        return Obstacle(RolloutReason.Paused, f"{where}; spec.paused is true")
    if outcome.action is Action.PAUSE:
        return Obstacle(RolloutReason.Paused, f"{where}; {outcome.message}")
    if candidate.step_started_at is None:
        return Obstacle(RolloutReason.Walking, f"{where}; the routers are taking it over")
    hold = spec.strategy.steps[candidate.step].hold
    left = seconds(hold) - held_seconds(candidate, draft.now)
    draft.soon.append(left)
    if left > 0:
        return Obstacle(RolloutReason.Walking, f"{where} for {hold}; {outcome.message}")
    if outcome.action is Action.HOLD:
        return Obstacle(outcome.reason, f"{where}; {outcome.message}")
    if not is_step_proven(spec.analysis, draft.metrics_of(candidate.version), draft.now):
        return Obstacle(RolloutReason.Walking, f"{where}; the hold is over, valid measurements are missing")
    if spec.strategy.promotion is Promotion.MANUAL:
        how = f"tuningfork promote tro/{observed.name} -n {observed.namespace}"
        return Obstacle(RolloutReason.WaitingForPromotion, f"{where}; {outcome.message}; to go on: {how}")
    return None


def _lease(observed: RolloutObserved, draft: Draft, present: str | None = None) -> str:
    """Renewed at half of its length, so that routes do not change at every measurement."""
    lease = timedelta(seconds=analysis.lease_seconds(observed.rollout))
    if present and parse_time(present) - draft.now > lease / 2:
        draft.soon.append((parse_time(present) - draft.now - lease / 2).total_seconds())
        return present
    return timestamp(draft.now + lease)
