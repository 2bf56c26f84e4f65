"""The decision (see the package's docstring for the order and why)."""

from datetime import datetime

from pydantic import ValidationError

from tuningfork.api.finetunejob import JobCondition, JobReason, Outcome, Phase, Run
from tuningfork.planning.finetunejob import history
from tuningfork.planning.finetunejob.draft import STAGES, Draft
from tuningfork.planning.finetunejob.finish import plan_finish
from tuningfork.planning.finetunejob.observed import PREPARE, TRAIN, Observed, is_leaving, timestamp
from tuningfork.planning.finetunejob.pod import LOST_POD_SECONDS, last_words, pod_of
from tuningfork.planning.finetunejob.running import plan_running
from tuningfork.planning.finetunejob.starting import plan_next_attempt
from tuningfork.planning.finetunejob.world import World, look, read_status, ref
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.storage import StorageDeniedError, StorageError, StoredRun

_ON_ITS_WAY = frozenset(Phase) - {Phase.PENDING, Phase.SUSPENDED, Phase.FAILED, Phase.REJECTED, Phase.SUCCEEDED}


def plan_finetunejob(observed: Observed, now: datetime) -> Plan:
    """What shall happen for one FineTuneJob."""
    if is_leaving(observed.parent):
        return Plan(why=("the job is being deleted; owner references take its children along",))
    if is_settled(observed.parent):
        return Plan(why=("the job is over and its spec unchanged",))
    try:
        world = look(observed, now)
    except ValidationError as error:
        return _unreadable(observed.parent, error, now)
    return _decide(world)


def is_settled(parent: Manifest) -> bool:
    """Whether nothing can happen to the object any more, so that nothing needs to be read for it."""
    status = parent.get("status") or {}
    over = status.get("phase") in {phase.value for phase in Phase if phase.terminal}
    return over and status.get("observedGeneration") == parent["metadata"].get("generation")


def _decide(world: World) -> Plan:
    stored, old = world.observed.stored, world.draft.old
    if old.phase in {Phase.SUCCEEDED, Phase.REJECTED} and old.spec_hash == world.hash:
        world.draft.unchanged()
        return world.plan("the spec changed in nothing that decides the result")
    if world.active is not None:
        return _suspend(world, world.active) if world.job.spec.suspend else plan_running(world, world.active)
    if isinstance(stored, StoredRun) and (stored.result or stored.problem):
        return plan_finish(world, stored)
    if world.job.spec.suspend:
        return _suspended(world)
    if not isinstance(stored, StoredRun):
        return _unread(world, stored)
    _revise_unfounded_success(world, stored)
    return _failed(world) or _hold(world) or plan_next_attempt(world, stored)


def _suspend(world: World, active: Manifest) -> Plan:
    world.deletes.append(ref(active))
    name = active["metadata"]["name"]
    world.runs = [history.stop(run, world.now) if run.job_name == name else run for run in world.runs]
    world.draft.resting("Suspended: the pod saves a checkpoint and stops")
    return world.plan(f"spec.suspend is true: Job {name} is deleted")


def _suspended(world: World) -> Plan:
    pod = world.stopping_pod()
    if pod:
        text = f"Suspended: pod {pod['metadata']['name']} saves a checkpoint and stops"
    else:
        text = "Suspended, nothing runs; set spec.suspend to false to go on from the last checkpoint"
    world.draft.resting(text)
    return world.plan("spec.suspend is true")


def _unread(world: World, stored: StorageError | None) -> Plan:
    """Nothing is decided before the output folder was read. While it is being read, stages and phase stay as they are."""
    draft = world.draft
    if not any(c.type in STAGES for c in draft.old.conditions):
        draft.stage(JobCondition.DATA_PREPARED, JobReason.Pending, JobReason.Pending.value)
    if stored is None:
        if draft.old.phase not in _ON_ITS_WAY:
            draft.going(JobReason.Pending, f"Looking for earlier results in {world.output}")
        return world.plan("the output folder is being read")
    denied = isinstance(stored, StorageDeniedError)
    reason = JobReason.StorageDenied if denied else JobReason.StorageUnavailable
    text = f"The operator cannot read the job's output: {stored}. It is tried again"
    if world.runs:  # the last attempt is over, so nothing trains
        _stage_failed(draft, world.runs[-1].stage, reason, text)
    draft.going(reason, text, stuck=denied)
    return world.plan(f"the output folder cannot be read: {stored}")


def _revise_unfounded_success(world: World, stored: StoredRun) -> None:
    """Success is a finished Job *and* what it had to leave in the store; the Job's word alone is not enough."""
    if not world.runs or world.runs[-1].outcome not in {Outcome.SUCCEEDED, Outcome.REJECTED}:
        return
    last = world.runs[-1]
    if last.stage == TRAIN:
        world.runs[-1] = history.without_result(last, f"there is no result.json in {world.output}")
    elif stored.prepared is None:
        world.runs[-1] = history.without_result(last, f"there is no prepared data in {world.output}")


def _failed(world: World) -> Plan | None:
    """Over, when a retry would end the same way or too many failed."""
    counted = history.counted(world.runs)
    if not counted:
        return None
    last, retries = counted[-1], world.job.spec.retries
    if history.is_permanent(last):
        reason, text = JobReason[last.reason], last.message
    elif len(counted) > retries:
        reason = JobReason.RetriesExhausted
        text = f"{len(counted)} failures with spec.retries {retries}; the last: {last.message}"
    else:
        return None
    _stage_failed(world.draft, last.stage, reason, text)
    _show_what_was_removed(world, last)
    world.draft.over(reason, text, accepted=False)
    return world.plan(f"failed for good: {reason.name}")


def _show_what_was_removed(world: World, last: Run) -> None:
    """Where prepare failed there is no report in the store; its pod's last words have the counts."""
    job = next((j for j in world.jobs if j["metadata"]["name"] == last.job_name), None)
    report = last_words(pod_of(job, world.observed.pods)) if job else None
    if report and report.data:
        world.draft.update(data=report.data)


def _hold(world: World) -> Plan | None:
    """Waits for the last attempt's pod to be gone, then for the pause between attempts."""
    draft, pod = world.draft, world.stopping_pod()
    if pod:
        text = f"Waiting for pod {pod['metadata']['name']} of the last attempt to save its state and stop"
        draft.going(JobReason.Retrying, text)
        return world.plan(text, requeue_after=LOST_POD_SECONDS)
    start = history.next_start(world.runs)
    if start is None or start <= world.now:
        return None
    last = world.runs[-1]
    reason = JobReason.Interrupted if last.outcome == Outcome.INTERRUPTED else JobReason.Retrying
    used = f"{len(history.counted(world.runs))} of {world.job.spec.retries} retries used"
    text = f"{last.message.rstrip('.')}. Next attempt at {timestamp(start)}; {used if last.counted else 'not counted as a retry'}"
    _stage_failed(draft, last.stage, reason, text)
    draft.going(reason, text)
    return world.plan(text, requeue_after=(start - world.now).total_seconds())


def _stage_failed(draft: Draft, stage: str, reason: JobReason, message: str) -> None:
    draft.stage(JobCondition.DATA_PREPARED if stage == PREPARE else JobCondition.TRAINED, reason, message)


def _unreadable(parent: Manifest, error: ValidationError, now: datetime) -> Plan:
    """A spec that the CRD let through and the models do not: another version's object."""
    draft = Draft(read_status(parent), parent["metadata"].get("generation", 0), now)
    first = error.errors()[0]
    text = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}, not {first.get('input')!r}"
    draft.over(JobReason.InvalidSpec, text, accepted=False)
    return Plan(status=draft.manifest(), events=tuple(draft.events), why=(text,))
