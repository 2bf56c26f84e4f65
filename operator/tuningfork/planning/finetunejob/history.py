"""The attempts of a job: what status remembers, brought up to date with the Jobs that are there.

An attempt enters the history when its Job has been *seen*, never when it is created: a watch lags behind a create, and an attempt
that is remembered but not yet seen would look as if it had vanished. Once an attempt has ended its entry is final, so that a Job
may be deleted without its story changing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from tuningfork.api._meta import LABEL_ATTEMPT, LABEL_STAGE
from tuningfork.api.finetunejob import JobReason, Outcome, Run
from tuningfork.api.jobfile import ExitCode, ProgressReport
from tuningfork.planning.finetunejob.observed import (
    TRAIN,
    condition,
    is_finished,
    is_leaving,
    parse_time,
    timestamp,
)
from tuningfork.planning.finetunejob.pod import PERMANENT_REASONS, Ending, ending, is_lost, pod_of
from tuningfork.planning.plan import Manifest

KEPT_RUNS = 50
BACKOFF_SECONDS = 10
BACKOFF_LIMIT_SECONDS = 300


def update_runs(
    remembered: Sequence[Run], jobs: Iterable[Manifest], pods: tuple[Manifest, ...], now: datetime, *, suspended: bool
) -> list[Run]:
    """The history with each Job's present state, oldest first."""
    runs = {run.job_name: run for run in remembered}
    seen = set()
    for job in sorted(jobs, key=lambda j: (j["metadata"].get("creationTimestamp", ""), _number(j))):
        name = job["metadata"]["name"]
        seen.add(name)
        run = runs.get(name) or _started(job)
        if run.outcome == Outcome.RUNNING:
            run = _advanced(run, job, pods, now, suspended=suspended)
        runs[name] = run
    for name, run in runs.items():
        if run.outcome == Outcome.RUNNING and name not in seen:
            runs[name] = _ended(run, _stopped("The Job is gone", suspended=suspended), timestamp(now))
    return list(runs.values())[-KEPT_RUNS:]


def _number(job: Manifest) -> int:
    return int(job["metadata"]["labels"][LABEL_ATTEMPT])


def _started(job: Manifest) -> Run:
    metadata = job["metadata"]
    return Run(
        attempt=_number(job),
        stage=metadata["labels"][LABEL_STAGE],
        job_name=metadata["name"],
        outcome=Outcome.RUNNING,
        started_at=metadata.get("creationTimestamp"),
    )


def _advanced(run: Run, job: Manifest, pods: tuple[Manifest, ...], now: datetime, *, suspended: bool) -> Run:
    if is_finished(job):
        over = condition(job, "Complete") or condition(job, "Failed") or {}
        end = ending(job, pod_of(job, pods))
        if suspended and end.outcome == Outcome.INTERRUPTED:
            end = _stopped(end.message, suspended=True)
        return _ended(run, end, over.get("lastTransitionTime") or timestamp(now))
    if is_leaving(job):
        return _ended(run, _stopped("The Job was deleted", suspended=suspended), timestamp(now))
    if is_lost(pod_of(job, pods), now):
        return _ended(run, _stopped("The pod's node does not answer", suspended=suspended), timestamp(now))
    return run


def _ended(run: Run, end: Ending, at: str) -> Run:
    return run.model_copy(
        update={
            "outcome": end.outcome,
            "counted": end.counted,
            "exit_code": end.exit_code,
            "reason": end.reason.name,
            "message": end.message[:1024],
            "ended_at": at,
        }
    )


def _stopped(message: str, *, suspended: bool) -> Ending:
    if suspended:
        return Ending(Outcome.SUSPENDED, JobReason.Suspended, "Stopped by spec.suspend")
    return Ending(Outcome.INTERRUPTED, JobReason.Interrupted, message)


def stop(run: Run, now: datetime) -> Run:
    """The run, ended by spec.suspend."""
    return _ended(run, _stopped("", suspended=True), timestamp(now))


def without_result(run: Run, what: str) -> Run:
    """A run whose Job says that it finished, while the store has nothing of it."""
    message = f"The trainer ended with exit status {run.exit_code} but {what}"
    end = Ending(Outcome.FAILED, JobReason.ArtifactInvalid, message, counted=True, exit_code=run.exit_code)
    return _ended(run, end, run.ended_at or "")


def with_resume(runs: list[Run], report: ProgressReport | None) -> list[Run]:
    """The step that the running attempt went on from, as it reported."""
    if report is None or report.resumed_from_step is None:
        return runs
    return [
        run.model_copy(update={"resumed_from_step": report.resumed_from_step})
        if run.stage == TRAIN and run.attempt == report.attempt and run.outcome == Outcome.RUNNING
        else run
        for run in runs
    ]


def forgiven(runs: Sequence[Run]) -> list[Run]:
    """The history after a person changed the spec of a failed job: nothing of it counts any more."""
    return [run.model_copy(update={"counted": False}) for run in runs]


def counted(runs: Sequence[Run]) -> list[Run]:
    """Failures that spec.retries is compared with."""
    return [run for run in runs if run.counted]


def is_permanent(run: Run) -> bool:
    """Whether the next attempt would end the same way."""
    return run.counted and run.reason in {reason.name for reason in PERMANENT_REASONS}


def next_number(runs: Sequence[Run], stage: str, at_least: int = 0) -> int:
    """The number of a stage's next attempt; numbers are never used twice, because results are written under them."""
    return max([run.attempt for run in runs if run.stage == stage] + [at_least]) + 1


def accelerator_ooms(runs: Sequence[Run]) -> int:
    """How often the accelerator's memory ran out."""
    return sum(run.exit_code == ExitCode.OUT_OF_MEMORY for run in counted(runs))


def host_ooms(runs: Sequence[Run], stage: str) -> int:
    """How often the kernel killed a stage for its host memory."""
    return sum(
        run.stage == stage and run.reason == JobReason.OutOfMemory.name and run.exit_code != ExitCode.OUT_OF_MEMORY
        for run in counted(runs)
    )


def next_start(runs: Sequence[Run]) -> datetime | None:
    """When the next attempt may start: 10 s after a failure or interruption, doubled with each in a row."""
    in_a_row = 0
    for run in reversed(runs):
        if not (run.counted or run.outcome == Outcome.INTERRUPTED):
            break
        in_a_row += 1
    if not in_a_row or not runs[-1].ended_at:
        return None
    wait = min(BACKOFF_SECONDS * 2 ** (in_a_row - 1), BACKOFF_LIMIT_SECONDS)
    return parse_time(runs[-1].ended_at) + timedelta(seconds=wait)
