"""The three tracks as they are: production's stable version, and the pins beside it.

A pin takes its share when it is loaded everywhere and its series are primed, goes to 0 and stays there when its analysis fails, and is
never promoted. A candidate on its track displaces it; a pin that names the candidate or the stable version adds nothing to them.
"""

from tuningfork.api import parse_time
from tuningfork.api.rollout import (
    Action,
    CandidateState,
    PinTrack,
    RolloutReason,
    Slice,
    TrackName,
    TrackState,
    TrackStatus,
    VersionRef,
)
from tuningfork.delivery.analysis import decide
from tuningfork.planning.rollout.analysis import forget, is_watched
from tuningfork.planning.rollout.draft import Draft, Obstacle
from tuningfork.planning.rollout.observed import RolloutObserved
from tuningfork.planning.rollout.versions import is_same, resolve
from tuningfork.planning.rollout.walk import PRIMING_SECONDS

Pins = dict[TrackName, VersionRef]
"""The pins that engines shall hold and routers shall know, whatever their present share."""


def place_pins(observed: RolloutObserved, draft: Draft) -> Pins:
    """Fills in ``draft.tracks`` but production's, and fails pins whose analysis failed."""
    pins: Pins = {}
    wanted = observed.rollout.spec.tracks
    for name, pin in ((TrackName.STAGING, wanted.staging), (TrackName.CANARY, wanted.canary)):
        if pin is None:
            _show_candidate(observed, draft, name)
            continue
        found = resolve(observed, draft, pin.version)
        if isinstance(found, VersionRef):
            status = _place(observed, draft, name, pin, found)
            if status.state in (TrackState.SERVING, TrackState.WAITING, TrackState.DISPLACED):
                pins[name] = found
        else:
            draft.obstacles.append(found)
            status = _track(name, pin, TrackState.WAITING, found.message)
        draft.tracks.append(status)
    return pins


def place_production(observed: RolloutObserved, draft: Draft, stable: str, weight: int) -> None:
    """The production track: only stable is production, a candidate on its last step is shown as the candidate."""
    serving = observed.serves and weight > 0
    state = TrackState.SERVING if serving else TrackState.WAITING
    message = "" if serving else "no ready engine and router answer for it"
    track = TrackStatus(
        name=TrackName.PRODUCTION, version=stable, weight=weight, slice=Slice.STABLE, state=state, message=message
    )
    draft.tracks.append(track)


def _place(observed: RolloutObserved, draft: Draft, name: TrackName, pin: PinTrack, ref: VersionRef) -> TrackStatus:
    old = next((t for t in observed.status.tracks if t.name == name and t.slice is Slice.PIN), None)
    since = old.since if old and old.version == ref.version and _is_routed(observed, name, ref) else None
    if draft.failure_of(ref):
        return _failed(draft, name, pin, ref)
    if is_same(ref, draft.candidate) or is_same(ref, draft.stable):
        return _track(name, pin, TrackState.MERGED, f"{ref.version} has its share as candidate or stable")
    if since is None:
        forget(draft, ref.version)  # it begins anew: what failed it before must not fail it again
    if since and old and old.weight:
        outcome = decide(observed.rollout.spec.analysis, draft.metrics_of(ref.version), draft.now)
        if outcome.action is Action.FAIL:
            draft.record_failure(ref, RolloutReason.RolledBack, outcome.message, outcome.first_failure)
            return _failed(draft, name, pin, ref)
    if occupant := _occupant(observed, draft, name):
        return _track(name, pin, TrackState.DISPLACED, f"{occupant} walks on this track", since)
    serves = old is not None and old.state is TrackState.SERVING
    if missing := _missing(observed, draft, ref, since, serves=serves):
        draft.blocked(*missing)
        routed = _is_routed(observed, name, ref) and observed.table is not None
        if since is None and routed and observed.acknowledged(observed.table.generation if observed.table else 0):
            since = draft.at
        return _track(name, pin, TrackState.WAITING, missing.message, since)
    return _track(name, pin, TrackState.SERVING, "", since).model_copy(update={"weight": pin.weight})


def _track(name: TrackName, pin: PinTrack, state: TrackState, message: str, since: str | None = None) -> TrackStatus:
    return TrackStatus(
        name=name, version=pin.version, weight=0, slice=Slice.PIN, state=state, since=since, message=message
    )


def _failed(draft: Draft, name: TrackName, pin: PinTrack, ref: VersionRef) -> TrackStatus:
    failure = draft.failure_of(ref)
    assert failure is not None
    draft.blocked(RolloutReason[failure.reason], f"{pin.version} on {name}: {failure.message}")
    return _track(name, pin, TrackState.FAILED, failure.message)


def _occupant(observed: RolloutObserved, draft: Draft, name: TrackName) -> str | None:
    """The candidate, while it walks on this track."""
    candidate = draft.candidate
    if candidate is None or candidate.state is not CandidateState.WALKING:
        return None
    return candidate.version if observed.rollout.spec.strategy.steps[candidate.step].track is name else None


def _show_candidate(observed: RolloutObserved, draft: Draft, name: TrackName) -> None:
    if draft.candidate and _occupant(observed, draft, name):
        draft.tracks.append(
            TrackStatus(
                name=name,
                version=draft.candidate.version,
                weight=draft.candidate.weight,
                slice=Slice.CANDIDATE,
                state=TrackState.SERVING,
            )
        )


def _missing(
    observed: RolloutObserved, draft: Draft, ref: VersionRef, since: str | None, *, serves: bool
) -> Obstacle | None:
    """Why a pin has no share yet; one that serves keeps its share while Prometheus is silent."""
    if draft.stable is None:
        return Obstacle(RolloutReason.NotServing, f"{ref.version} waits for the first stable version")
    if not observed.loaded_everywhere(ref.adapter):
        return Obstacle(RolloutReason.WaitingForReplicas, f"{ref.version}: {observed.load_problem(ref.adapter)}")
    if since is not None:
        left = PRIMING_SECONDS - (draft.now - parse_time(since)).total_seconds()
        draft.soon.append(left)
        if left <= 0 and is_watched(observed, draft, ref.version):
            outcome = decide(observed.rollout.spec.analysis, draft.metrics_of(ref.version), draft.now)
            if serves or outcome.action is Action.PASS:
                return None
            return Obstacle(outcome.reason, f"{ref.version} gets no weight while nobody sees it: {outcome.message}")
    return Obstacle(RolloutReason.Starting, f"{ref.version} is ready; its series are primed at weight 0")


def _is_routed(observed: RolloutObserved, name: TrackName, ref: VersionRef) -> bool:
    return observed.table is not None and any(p.track == name and p.adapter == ref.adapter for p in observed.table.pins)
