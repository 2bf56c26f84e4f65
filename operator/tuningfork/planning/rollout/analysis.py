"""Whose traffic is watched, and what the measurements of this pass add to the status."""

from datetime import timedelta

from tuningfork.api import Rollout, RolloutStatus, parse_time, seconds
from tuningfork.api.rollout import AnalysisMetric, CandidateState, MetricStatus, Slice, TrackState, Verdict
from tuningfork.delivery.analysis import evidence_needed, has_failed, judge
from tuningfork.delivery.queries import Subject
from tuningfork.planning.rollout.draft import Draft
from tuningfork.planning.rollout.observed import RolloutObserved

LEASE_SHORTEST = 60.0
"""Seconds that a candidate keeps its weight without a measurement; a fail-over of the operator takes 15."""

PRODUCTION_WINDOW = 600
"""Seconds of production's traffic that its limits are measured over while nobody walks."""

_PRODUCTION = (Slice.STABLE, Slice.BASELINE)


def watched_metrics(rollout: Rollout, subject: Subject) -> list[AnalysisMetric]:
    """Production itself is held to absolute limits only: there is nothing to compare it with."""
    own = subject.slices == _PRODUCTION
    return [m for m in rollout.spec.analysis.metrics if not (own and m.compare_to)]


def build_subjects(rollout: Rollout, status: RolloutStatus) -> list[Subject]:
    """The versions whose series are asked for now: the candidate and the pins, else production itself."""
    subjects = []
    stable, candidate = status.stable, status.candidate
    if stable and candidate and candidate.primed_at and candidate.state is not CandidateState.PROMOTING:
        step = candidate.step_started_at or candidate.primed_at
        subjects.append(_subject(rollout, status, candidate.version, (Slice.CANDIDATE,), candidate.since, step))
    subjects += [
        _subject(rollout, status, track.version, (Slice.PIN,), track.since, track.since)
        for track in status.tracks
        if stable and track.slice is Slice.PIN and track.since and track.state is not TrackState.FAILED
    ]
    if stable and not candidate:
        subjects.append(_subject(rollout, status, stable.version, _PRODUCTION, stable.since, stable.since))
    return subjects


def _subject(
    rollout: Rollout,
    status: RolloutStatus,
    version: str,
    slices: tuple[Slice, ...],
    compare_since: str | None,
    limit_since: str | None,
) -> Subject:
    assert compare_since is not None
    assert limit_since is not None
    assert status.stable is not None
    own = slices == _PRODUCTION
    return Subject(
        namespace=rollout.metadata.namespace,
        rollout=rollout.metadata.name,
        model=rollout.spec.model,
        version=version,
        slices=slices,
        compare_since=parse_time(compare_since),
        limit_since=parse_time(limit_since),
        baseline_version=None if own else status.stable.version,
        baseline_slices=() if own else (Slice.BASELINE,) if slices == (Slice.CANDIDATE,) else _PRODUCTION,
        **({"longest": PRODUCTION_WINDOW} if own else {}),
    )


def measure(observed: RolloutObserved, draft: Draft) -> None:
    """Adds each measurement that is newer than the last one of its metric."""
    analysis = observed.rollout.spec.analysis
    for subject in build_subjects(observed.rollout, observed.status):
        known = draft.metrics_of(subject.version)
        for metric in watched_metrics(observed.rollout, subject):
            found, old = observed.measurements.get((subject.version, metric.name)), known.get(metric.name)
            if found is None or (
                old and old.measured_at and found.at < parse_time(old.measured_at) + timedelta(seconds=1)
            ):
                continue
            in_force = _in_force(observed.status, subject)
            new = judge(metric, subject.version, old, found, evidence_needed(analysis), in_force=in_force)
            if subject.slices == _PRODUCTION:
                _alert(draft, metric, old, new)
                if old and old.verdict is new.verdict and (new.verdict is not Verdict.FAIL or has_failed(metric, old)):
                    continue  # nobody decides on it: status says how it is, not each number
            _put(draft, new)


def is_watched(observed: RolloutObserved, draft: Draft, version: str) -> bool:
    """Whether this pass knows a recent measurement of every deciding metric: nothing gets more traffic blindly."""
    oldest = draft.now - timedelta(seconds=lease_seconds(observed.rollout))
    found = [
        observed.measurements.get((version, m.name)) for m in observed.rollout.spec.analysis.metrics if not m.dry_run
    ]
    return all(m is not None and m.at >= oldest for m in found)


def lease_seconds(rollout: Rollout) -> float:
    """How long a candidate keeps its weight when nobody looks."""
    return max(LEASE_SHORTEST, 3 * seconds(rollout.spec.analysis.interval))


def forget(draft: Draft, version: str) -> None:
    """Drops a version's metrics: a walk begins with none."""
    draft.metrics = [m for m in draft.metrics if m.subject != version]


def _in_force(status: RolloutStatus, subject: Subject) -> bool:
    if subject.slices == (Slice.CANDIDATE,):
        return bool(status.candidate and status.candidate.step_started_at)
    if subject.slices == (Slice.PIN,):
        return any(t.version == subject.version and t.weight for t in status.tracks if t.slice is Slice.PIN)
    return False


def _alert(draft: Draft, metric: AnalysisMetric, old: MetricStatus | None, new: MetricStatus) -> None:
    """Nobody walks: production's harm is told, not acted on."""
    if metric.dry_run or not has_failed(metric, new) or (old and has_failed(metric, old)):
        return
    if new.verdict is Verdict.FAIL:
        draft.warning("ProductionDegraded", f"{new.subject} on production: {new.message}")


def _put(draft: Draft, new: MetricStatus) -> None:
    key = (new.subject, new.name)
    if any((m.subject, m.name) == key for m in draft.metrics):
        draft.metrics = [new if (m.subject, m.name) == key else m for m in draft.metrics]
    else:
        draft.metrics = [*draft.metrics, new]
