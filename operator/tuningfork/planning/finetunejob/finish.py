"""A result lies in the store: gates, registration, the end.

A version is found by the job's uid and the artifact's digest, then by the digest alone (the same job, created again). Its number is
the next free one; a name that somebody else took meanwhile shows at the next look, and the number after it is tried.
"""

import re

from tuningfork.api._meta import LABEL_JOB_UID
from tuningfork.api.artifacts import Result
from tuningfork.api.finetunejob import GateResult, JobCondition, JobReason, Progress, Register
from tuningfork.planning.finetunejob.children import build_version
from tuningfork.planning.finetunejob.running import rounded
from tuningfork.planning.finetunejob.world import World
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.storage import StoredRun

NAME_TAKEN_SECONDS = 2
"""Until the version must have shown up, or its name belongs to another object."""


def plan_finish(world: World, stored: StoredRun) -> Plan:
    """Success, an honest no, or artifacts that are not what they say."""
    draft, result = world.draft, stored.result
    if stored.problem or result is None:
        text = f"{stored.problem}. Delete {world.output}/result.json and create the job again"
        draft.stage(JobCondition.TRAINED, JobReason.ArtifactInvalid, text)
        draft.over(JobReason.ArtifactInvalid, text, accepted=False)
        return world.plan(text)
    _show_result(world, stored, result)
    if not result.accepted:
        return _rejected(world, result)
    passed = "; ".join(_gate(gate) for gate in result.evaluation.gates)
    text = f"Accepted: {passed}" if passed else "Accepted: no gate was set"
    draft.stage(JobCondition.EVALUATED, JobReason.GatesPassed, text, done=True)
    register = world.job.spec.output.register_
    if register is None:
        draft.stage(JobCondition.REGISTERED, JobReason.NotRequested, JobReason.NotRequested.value)
        return _succeeded(world, f"{text}; the artifacts lie in {result.uri}")
    return _register(world, register, result, text)


def _show_result(world: World, stored: StoredRun, result: Result) -> None:
    draft = world.draft
    if stored.prepared:
        draft.prepared(stored.prepared.data.model_copy(update={"digest": result.data_digest}))
    else:
        draft.stage(JobCondition.DATA_PREPARED, JobReason.Prepared, "An earlier run prepared the data", done=True)
    if draft.old.sizing:
        draft.stage(JobCondition.SIZED, JobReason.Sized, draft.old.sizing.message, done=True)
    else:
        draft.stage(JobCondition.SIZED, JobReason.Sized, "An earlier run of the same spec was sized", done=True)
    text = f"{_count(result.steps, 'step')}; artifacts verified"
    draft.stage(JobCondition.TRAINED, JobReason.Trained, text, done=True)
    shown = draft.old.progress or Progress()
    draft.update(
        evaluation=result.evaluation,
        resolved={**(draft.old.resolved or {}), **result.resolved},
        progress=Progress(
            step=result.steps,
            total_steps=result.steps,
            percent=100,
            loss=rounded(result.final_loss, 4),
            tokens_per_second=shown.tokens_per_second,
            updated_at=shown.updated_at,
        ),
    )


def _rejected(world: World, result: Result) -> Plan:
    reasons = "; ".join(_gate(gate) for gate in result.evaluation.gates if not gate.passed)
    text = f"The tuned model is not good enough: {reasons or 'a gate could not be decided'}"
    world.draft.stage(JobCondition.EVALUATED, JobReason.GateFailed, text)
    world.draft.over(JobReason.GateFailed, text, accepted=False)
    return world.plan(text)


def _register(world: World, register: Register, result: Result, gates: str) -> Plan:
    draft, model = world.draft, register.model
    version = _find_version(world, model, result)
    if version:
        text = f"{gates}; registered as {version}"
        draft.stage(JobCondition.REGISTERED, JobReason.Registered, f"ModelVersion {version} exists", done=True)
        draft.update(model_version=version)
        return _succeeded(world, text)
    wanted = build_version(world.job, model, _next_version(world.observed.versions, model), result)
    text = f"{gates}; ModelVersion {wanted['metadata']['name']} is being registered"
    draft.stage(JobCondition.REGISTERED, JobReason.Exporting, text)
    draft.going(JobReason.Exporting, text)
    return world.plan(text, create=(wanted,), requeue_after=NAME_TAKEN_SECONDS)


def _succeeded(world: World, text: str) -> Plan:
    world.draft.over(JobReason.Succeeded, text, accepted=True)
    return world.plan(text)


def _find_version(world: World, model: str, result: Result) -> str | None:
    """The job's own version before one that another job of the same content made."""
    same = [
        version
        for version in world.observed.versions
        if version["spec"]["model"] == model and version["spec"]["artifact"]["digest"] == result.digest
    ]
    same.sort(key=lambda version: not _is_own(version, world.job.metadata.uid))
    return str(same[0]["metadata"]["name"]) if same else None


def _is_own(version: Manifest, uid: str) -> bool:
    return bool(version["metadata"].get("labels", {}).get(LABEL_JOB_UID) == uid)


def _next_version(versions: tuple[Manifest, ...], model: str) -> int:
    pattern = re.compile(rf"{re.escape(model)}-v([0-9]{{1,9}})")
    numbers = (pattern.fullmatch(version["metadata"]["name"]) for version in versions)
    return max((int(match.group(1)) for match in numbers if match), default=0) + 1


def _gate(gate: GateResult) -> str:
    measured = f"{gate.metric} {_number(gate.value)} against {_number(gate.baseline)} of the baseline"
    return f"{measured}, ratio {_number(gate.ratio)}, at most {_number(gate.threshold)} is accepted"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
