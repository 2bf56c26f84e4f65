"""The next attempt: prepare the data where it is not prepared, else size the run and train."""

from tuningfork.api.artifacts import PreparedData
from tuningfork.api.finetunejob import JobCondition, JobReason, Progress, Sizing
from tuningfork.planning.finetunejob import history
from tuningfork.planning.finetunejob.attempt import Attempt
from tuningfork.planning.finetunejob.children import build_config_map, build_job
from tuningfork.planning.finetunejob.draft import STAGES
from tuningfork.planning.finetunejob.observed import PREPARE, TRAIN
from tuningfork.planning.finetunejob.world import World
from tuningfork.planning.plan import Plan
from tuningfork.planning.storage import StoredRun
from tuningfork.sizing import NothingFits, UnknownModuleError, choose, workload

NOTHING_FITS_SECONDS = 30
"""How often the nodes are looked at again while nothing fits."""


def plan_next_attempt(world: World, stored: StoredRun) -> Plan:
    """Nothing runs, nothing failed for good, nothing is to be waited for."""
    if stored.prepared is None:
        return _prepare(world)
    world.draft.prepared(stored.prepared.data)
    try:
        sizing = _size(world, stored.prepared)
    except UnknownModuleError as error:
        return _unsizable(world, JobReason.InvalidSpec, str(error))
    except KeyError as error:
        text = f"spec.model.uri: {world.job.spec.model.uri} cannot be sized: {error.args[0]}"
        return _unsizable(world, JobReason.ModelUnusable, text)
    return _nothing_fits(world, sizing) if isinstance(sizing, NothingFits) else _train(world, sizing)


def _prepare(world: World) -> Plan:
    number = history.next_number(world.runs, PREPARE)
    raises = history.host_ooms(world.runs, PREPARE)
    text = "The data is being fetched, cleaned and counted; this takes no accelerator"
    world.draft.forget(*STAGES)
    world.draft.stage(JobCondition.DATA_PREPARED, JobReason.Preparing, text)
    world.draft.going(JobReason.Preparing, text)
    return _start(world, Attempt(PREPARE, number, world.hash, world.output, memory_raises=raises))


def _size(world: World, prepared: PreparedData) -> Sizing | NothingFits:
    spec = world.job.spec
    longest = prepared.data.longest_tokens or None
    work = workload(spec, prepared.model_config_, weight_bytes=prepared.weight_bytes, longest=longest)
    smaller = history.accelerator_ooms(world.runs)
    return choose(work, spec.compute.accelerators, world.observed.offers, smaller=smaller)


def _unsizable(world: World, reason: JobReason, text: str) -> Plan:
    world.draft.stage(JobCondition.SIZED, reason, text)
    world.draft.over(reason, text, accepted=False)
    return world.plan(text)


def _nothing_fits(world: World, nothing: NothingFits) -> Plan:
    """A cluster may grow, so this waits; memory that ran out at every size does not come back."""
    if history.accelerator_ooms(world.runs):
        return _unsizable(world, JobReason.OutOfMemory, nothing.message)
    world.draft.stage(JobCondition.SIZED, JobReason.NothingFits, nothing.message)
    world.draft.going(JobReason.NothingFits, nothing.message, stuck=True)
    return world.plan(nothing.message, requeue_after=NOTHING_FITS_SECONDS)


def _train(world: World, sizing: Sizing) -> Plan:
    draft = world.draft
    number = history.next_number(world.runs, TRAIN, draft.old.attempts)
    raises = history.host_ooms(world.runs, TRAIN)
    text = f"Waiting to be scheduled. {sizing.message}"
    draft.stage(JobCondition.TRAINED, JobReason.Queued, text)
    draft.forget(JobCondition.EVALUATED, JobCondition.REGISTERED)
    draft.sized(sizing)
    if draft.old.progress:
        old = draft.old.progress
        draft.update(progress=Progress(step=old.step, total_steps=old.total_steps, percent=old.percent))
    draft.going(JobReason.Queued, text)
    return _start(world, Attempt(TRAIN, number, world.hash, world.output, sizing=sizing, memory_raises=raises))


def _start(world: World, attempt: Attempt) -> Plan:
    """The ConfigMap before the Job whose pod mounts it."""
    config_map = build_config_map(world.observed, world.job, attempt)
    job = build_job(world.observed, world.job, attempt)
    name = job["metadata"]["name"]
    return world.plan(f"{attempt.stage} attempt {attempt.number} starts as Job {name}", create=(config_map, job))
