"""An attempt that is on its way: what its pod does, and how far it is.

"Training" is only said of a pod that runs. A pod that waits is Queued, with the scheduler's own words, whatever the last attempt
had reached.
"""

from datetime import datetime

from tuningfork.api.finetunejob import JobCondition, JobReason, Progress
from tuningfork.api.jobfile import ProgressReport
from tuningfork.planning.finetunejob.attempt import Attempt, read_attempt
from tuningfork.planning.finetunejob.draft import Draft
from tuningfork.planning.finetunejob.observed import PREPARE, parse_time, timestamp
from tuningfork.planning.finetunejob.pod import Look, PodState, look_at, lost_in, pod_of
from tuningfork.planning.finetunejob.world import World
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.storage import StoredRun

PROGRESS_SECONDS = 5
"""Shortest time between two writes of progress that change nothing but numbers."""


def plan_running(world: World, active: Manifest) -> Plan:
    """Shows what the Job's pod does and keeps its ConfigMap equal."""
    attempt = read_attempt(active, world.output)
    pod = pod_of(active, world.observed.pods)
    seen = look_at(pod, world.observed.settings.s3.secret_name)
    requeue_after = lost_in(pod, world.now)  # nothing else would wake us when its node is gone
    if attempt.stage == PREPARE:
        _show_prepare(world.draft, seen)
    else:
        held_back = _show_train(world, attempt, seen)
        requeue_after = min((s for s in (requeue_after, held_back) if s is not None), default=None)
    why = f"{attempt.stage} attempt {attempt.number} is on its way"
    return world.plan(why, apply=world.differing_config_map(attempt), requeue_after=requeue_after)


def _show_prepare(draft: Draft, seen: Look) -> None:
    match seen.state:
        case PodState.CANNOT_START:
            reason, text = JobReason.PodStartFailed, seen.message
        case PodState.WAITING:
            reason, text = JobReason.Preparing, seen.message
        case PodState.RUNNING | PodState.ENDED:
            reason, text = JobReason.Preparing, "The data is being fetched, cleaned and counted"
    draft.stage(JobCondition.DATA_PREPARED, reason, text)
    draft.going(reason, text, stuck=reason == JobReason.PodStartFailed)


def _show_train(world: World, attempt: Attempt, seen: Look) -> float | None:
    """The seconds after which progress that was held back is to be shown."""
    draft, stored = world.draft, world.observed.stored
    if isinstance(stored, StoredRun) and stored.prepared:
        draft.prepared(stored.prepared.data)
    elif not draft.holds(JobCondition.DATA_PREPARED):
        draft.stage(JobCondition.DATA_PREPARED, JobReason.Prepared, "The data is prepared", done=True)
    if attempt.sizing:
        draft.sized(attempt.sizing)
    draft.update(attempts=max(draft.old.attempts, attempt.number))
    match seen.state:
        case PodState.CANNOT_START:
            _say(draft, JobReason.PodStartFailed, seen.message)
        case PodState.WAITING:
            _say(draft, JobReason.Queued, seen.message)
        case PodState.ENDED:
            pass  # for a moment, until the Job says how
        case PodState.RUNNING:
            return _show_progress(world, attempt)
    return None


def _say(draft: Draft, reason: JobReason, text: str) -> None:
    draft.stage(JobCondition.TRAINED, reason, text)
    draft.going(reason, text, stuck=reason == JobReason.PodStartFailed)


def _show_progress(world: World, attempt: Attempt) -> float | None:
    draft, report, at = world.draft, world.observed.progress, world.observed.progress_at
    shown = draft.old.progress or Progress()
    if report is None or at is None or report.attempt != attempt.number:
        _say(draft, *_sentence(shown))
        return None
    new = _progress(report, at)
    held_back = _held_back(shown, new, world.now)
    if held_back:
        _say(draft, *_sentence(shown))
        return held_back
    draft.update(progress=new)
    _say(draft, *_sentence(new))
    return None


def _held_back(shown: Progress, new: Progress, now: datetime) -> float | None:
    """Seconds until the numbers may be written; a new stage is written at once."""
    if shown.stage != new.stage or shown.updated_at is None or shown == new:
        return None
    wait = PROGRESS_SECONDS - (now - parse_time(shown.updated_at)).total_seconds()
    return wait if wait > 0 else None


def _progress(report: ProgressReport, at: datetime) -> Progress:
    percent = min(100, 100 * report.step // report.total_steps) if report.total_steps else 0
    return Progress(
        stage=report.stage,
        step=report.step,
        total_steps=report.total_steps,
        percent=percent,
        loss=rounded(report.loss, 4),
        tokens_per_second=rounded(report.tokens_per_second, 1),
        eta_seconds=report.eta_seconds,
        updated_at=timestamp(at),
    )


def rounded(value: float | None, digits: int) -> float | None:
    """A number that a person reads in a column."""
    return None if value is None else round(value, digits)


def _sentence(progress: Progress) -> tuple[JobReason, str]:
    """Without loss and speed: they have fields of their own, and a sentence that changes with each post is noise."""
    match progress.stage:
        case "evaluate":
            return JobReason.Evaluating, "The tuned model is being measured on the test split"
        case "export":
            return JobReason.Exporting, "Artifacts are being written"
        case "train":
            return JobReason.Training, f"Step {progress.step} of {progress.total_steps}"
        case _:
            return JobReason.Training, "The pod runs and fetches the model and the data"
