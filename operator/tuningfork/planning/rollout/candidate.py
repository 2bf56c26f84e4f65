"""Who the candidate is, and how one ends: what the spec and a person ask for, compared with what stands in status.

Nothing here looks at edges ("the version changed"): each pass compares, so a missed event or a restarted operator changes nothing.
"""

from datetime import datetime, timedelta
from typing import Any

from tuningfork.api import parse_time, seconds
from tuningfork.api.rollout import CandidateState, CandidateStatus, RolloutReason, VersionRef
from tuningfork.planning.rollout import analysis
from tuningfork.planning.rollout.commands import Command, ignored
from tuningfork.planning.rollout.draft import Draft, Obstacle
from tuningfork.planning.rollout.observed import RolloutObserved
from tuningfork.planning.rollout.versions import is_same, resolve


def obey(observed: RolloutObserved, draft: Draft, commands: list[Command]) -> list[Command]:
    """Carries out abort and retry; what remains concerns the candidate's step."""
    for command in commands:
        candidate = draft.candidate
        if command.verb == "abort" and candidate and draft.stable and candidate.version == command.version:
            fail(draft, candidate, RolloutReason.Aborted, "aborted by command")
        elif command.verb == "abort" and (pin := _pin(observed, draft, command.version)):
            draft.record_failure(pin, RolloutReason.Aborted, "aborted by command")
        elif command.verb == "retry" and any(f.version == command.version for f in draft.failed):
            draft.failed = [f for f in draft.failed if f.version != command.version]
            draft.normal("Retried", f"{command.version} is tried again by command")
        elif command.verb in ("abort", "retry"):
            ignored(draft, command)
    return [c for c in commands if c.verb.startswith("promote")]


def _pin(observed: RolloutObserved, draft: Draft, version: str) -> VersionRef | None:
    tracks = observed.rollout.spec.tracks
    if version not in {pin.version for pin in (tracks.staging, tracks.canary) if pin}:
        return None
    found = resolve(observed, draft, version)
    return found if isinstance(found, VersionRef) else None


def follow_spec(observed: RolloutObserved, draft: Draft) -> None:
    """Makes the candidate what the spec asks for: the same, another, or none."""
    wanted = resolve(observed, draft, observed.rollout.spec.tracks.production.version)
    candidate = draft.candidate
    if isinstance(wanted, Obstacle):
        draft.obstacles.append(wanted)
        _cancel(draft, wanted.message)
    elif is_same(wanted, draft.stable):
        _cancel(draft, f"the spec asks for {wanted.version}, which is stable")
    elif candidate and is_same(wanted, candidate) and candidate.hash == draft.hash:
        return
    elif (failure := draft.failure_of(wanted)) and not is_way_back(observed, draft, wanted):
        _cancel(draft, f"{wanted.version} failed already")
        draft.blocked(_still(observed, failure.reason), f"{wanted.version}: {failure.message}")
    else:
        _begin(draft, wanted)


def _still(observed: RolloutObserved, reason: str) -> RolloutReason:
    """The failure's own reason as long as the spec that failed stands; PreviouslyFailed when it was asked for anew."""
    same_spec = observed.rollout.metadata.generation == observed.status.observed_generation
    was_told = any(c.type == "Stalled" and c.reason == "PreviouslyFailed" for c in observed.status.conditions)
    return RolloutReason[reason] if same_spec and not was_told else RolloutReason.PreviouslyFailed


def is_way_back(observed: RolloutObserved, draft: Draft, wanted: VersionRef) -> bool:
    """Whether it was stable just before: nothing about it has to be found out."""
    return is_same(wanted, draft.previous) and within_rollback_window(observed, draft)


def _begin(draft: Draft, wanted: VersionRef) -> None:
    """A fresh walk at weight 0; whoever walked before loses its weight in the same pass."""
    if draft.candidate:
        again = is_same(wanted, draft.candidate)
        draft.because(
            "the walk starts again: its steps or analysis changed" if again else f"{wanted.version} replaces it"
        )
        analysis.forget(draft, draft.candidate.version)
    analysis.forget(draft, wanted.version)
    draft.candidate = CandidateStatus(
        **wanted.model_dump(exclude={"since"}),
        since=draft.at,
        state=CandidateState.WAITING,
        walk=f"{wanted.adapter}-{draft.hash}-{int(draft.now.timestamp())}",
        hash=draft.hash,
    )
    draft.normal("CandidateFound", f"{wanted.version} is the candidate")


def _cancel(draft: Draft, why: str) -> None:
    if draft.candidate:
        draft.because(f"the walk of {draft.candidate.version} ends without a verdict: {why}")
        analysis.forget(draft, draft.candidate.version)
        draft.candidate = None


def fail(
    draft: Draft, candidate: CandidateStatus, reason: RolloutReason, message: str, first: datetime | None = None
) -> None:
    """Weight 0 in this very pass; the metrics stay to be read."""
    draft.record_failure(candidate, reason, message, first)
    draft.candidate = None
    draft.blocked(reason, f"{candidate.version}: {message}")


def change(draft: Draft, candidate: CandidateStatus, **changes: Any) -> CandidateStatus:
    """The candidate with other values, in the draft too."""
    draft.candidate = candidate.model_copy(update=changes)
    return draft.candidate


def within_rollback_window(observed: RolloutObserved, draft: Draft) -> bool:
    """Whether the previous version is still kept ready."""
    if draft.previous is None or draft.previous.since is None:
        return False
    until = parse_time(draft.previous.since) + timedelta(seconds=seconds(observed.rollout.spec.rollback_window))
    draft.soon.append((until - draft.now).total_seconds())
    return draft.now < until


def reference(candidate: CandidateStatus, since: str) -> VersionRef:
    """The candidate as it becomes stable."""
    return VersionRef(
        version=candidate.version,
        digest=candidate.digest,
        uri=candidate.uri,
        adapter=candidate.adapter,
        since=since,
    )
