"""The parsed parent with what already belongs to it, the same for every decision of a plan."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import ValidationError

from tuningfork.api import FineTuneJob, FineTuneJobStatus
from tuningfork.api.artifacts import output_prefix, spec_hash
from tuningfork.api.finetunejob import Outcome, Phase, Run
from tuningfork.planning.finetunejob import history
from tuningfork.planning.finetunejob.attempt import Attempt
from tuningfork.planning.finetunejob.children import build_config_map
from tuningfork.planning.finetunejob.draft import Draft
from tuningfork.planning.finetunejob.observed import (
    LABEL_SPEC_HASH,
    TRAIN,
    Observed,
    is_finished,
    is_leaving,
    parse_time,
)
from tuningfork.planning.finetunejob.pod import has_ended, is_lost, pod_of
from tuningfork.planning.plan import Event, Manifest, ObjectRef, Plan


@dataclass
class World:
    """Changed while a plan is made; the plan itself is not."""

    observed: Observed
    now: datetime
    job: FineTuneJob
    hash: str
    output: str
    jobs: tuple[Manifest, ...]
    """Of the present spec."""
    active: Manifest | None
    """The Job that is on its way; there is never more than one."""
    runs: list[Run]
    draft: Draft
    deletes: list[ObjectRef] = field(default_factory=list)

    def plan(
        self,
        *why: str,
        create: tuple[Manifest, ...] = (),
        apply: tuple[Manifest, ...] = (),
        requeue_after: float | None = None,
    ) -> Plan:
        """What was collected, as a plan."""
        self.draft.update(runs=self.runs)
        status = self.draft.manifest()
        return Plan(
            delete=tuple(self.deletes),
            create=create,
            apply=apply,
            status=status,
            events=tuple(self.draft.events),
            requeue_after=requeue_after,
            why=why,
        )

    def stopping_pod(self) -> Manifest | None:
        """A pod that still writes. One whose node does not answer is not waited for: its writes go under another number."""
        return next((p for p in self.observed.pods if not has_ended(p) and not is_lost(p, self.now)), None)

    def differing_config_map(self, attempt: Attempt) -> tuple[Manifest, ...]:
        """The attempt's ConfigMap when it is missing or differs."""
        wanted = build_config_map(self.observed, self.job, attempt)
        name = wanted["metadata"]["name"]
        there = next((m for m in self.observed.config_maps if m["metadata"]["name"] == name), None)
        return () if there and there.get("data") == wanted["data"] else (wanted,)


def look(observed: Observed, now: datetime) -> World:
    """Raises ValidationError for a spec that cannot be read."""
    parent = observed.parent
    job = FineTuneJob.model_validate({**parent, "status": None})
    hash_ = spec_hash(job.spec)
    old = read_status(parent)
    if old.spec_hash not in (None, hash_):
        old = FineTuneJobStatus(phase=old.phase)
    own = tuple(j for j in observed.jobs if _hash(j) == hash_)
    on_their_way = [j for j in own if not is_finished(j) and not is_leaving(j)]
    lost = [j for j in on_their_way if is_lost(pod_of(j, observed.pods), now)]
    active = next((j for j in on_their_way if j not in lost), None)
    observed = _without_stale_progress(observed, active)
    remembered = old.runs
    if old.phase == Phase.FAILED and old.observed_generation != job.metadata.generation:
        remembered = history.forgiven(remembered)
    runs = history.update_runs(remembered, own, observed.pods, now, suspended=job.spec.suspend)
    world = World(
        observed=observed,
        now=now,
        job=job,
        hash=hash_,
        output=output_prefix(job.spec.output.uri, job.metadata.namespace, job.metadata.name, hash_),
        jobs=own,
        active=active,
        runs=history.with_resume(runs, observed.progress),
        draft=Draft(old, job.metadata.generation, now),
        deletes=[
            *(ref(child) for child in (*observed.jobs, *observed.config_maps) if _is_leftover(child, hash_)),
            *(ref(job) for job in lost),
        ],
    )
    attempts = max([old.attempts, *(run.attempt for run in runs if run.stage == TRAIN)])
    world.draft.update(spec_hash=hash_, output=world.output, attempts=attempts)
    world.draft.events += _endings(old.runs, world.runs)
    return world


def read_status(parent: Manifest) -> FineTuneJobStatus:
    """What was written before; what another version of the operator wrote and we cannot read starts over."""
    try:
        return FineTuneJobStatus.model_validate(parent.get("status") or {})
    except ValidationError:
        return FineTuneJobStatus()


def ref(child: Manifest) -> ObjectRef:
    """Names a child for deletion."""
    metadata = child["metadata"]
    return ObjectRef(child["apiVersion"], child["kind"], metadata["namespace"], metadata["name"], metadata["uid"])


def _hash(child: Manifest) -> str:
    return str(child["metadata"].get("labels", {}).get(LABEL_SPEC_HASH, ""))


def _without_stale_progress(observed: Observed, active: Manifest | None) -> Observed:
    """Attempts of both stages and of each spec count from 1, so a report's number alone does not say that it is the active Job's."""
    at, created = observed.progress_at, active and active["metadata"].get("creationTimestamp")
    if at and created and at < parse_time(created):
        return replace(observed, progress=None, progress_at=None)
    return observed


def _is_leftover(child: Manifest, hash_: str) -> bool:
    return _hash(child) != hash_ and not is_leaving(child)


def _endings(before: list[Run], after: list[Run]) -> list[Event]:
    """An Event for each attempt whose end is news."""
    known = {run.job_name for run in before if run.outcome != Outcome.RUNNING}
    return [
        Event("Warning", run.reason, f"{run.stage.capitalize()} attempt {run.attempt}: {run.message}"[:1024])
        for run in after
        if run.job_name not in known and run.outcome in {Outcome.FAILED, Outcome.INTERRUPTED}
    ]
