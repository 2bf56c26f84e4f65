"""What shall be said of a ModelVersion: whether its files are what its digest says, where it serves, and who names it.

Verification is remembered in status: a version that was verified is not hashed again when the operator restarts, because its spec
and with it the digest never change. What could not be read is tried again; what does not match is final until somebody sends the
retry command, which makes the controller read again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuningfork.api import ModelVersion, ModelVersionStatus
from tuningfork.api._meta import ConditionStatus, set_condition
from tuningfork.api.modelversion import Stage, VersionCondition, VersionReason, adapter_name
from tuningfork.planning.plan import Event, Manifest, Plan
from tuningfork.planning.storage import ObjectNotFoundError, StorageDeniedError, StorageError, Verification

USED_BY_LIMIT = 64
"""As many as the API lets a status hold."""

_PUBLICITY = (Stage.NONE, Stage.CANARY, Stage.STAGING, Stage.PRODUCTION)
_STAGES = {"canary": Stage.CANARY, "staging": Stage.STAGING, "production": Stage.STAGING}
"""Of a candidate or pin by its track: on the production track a candidate is still no production version."""


@dataclass(frozen=True)
class Observed:
    """What is known of a version."""

    parent: Manifest
    verification: Verification | StorageError | None = None
    """Of its files; None: not read yet, or not needed any more."""
    rollouts: tuple[Manifest, ...] = ()
    """Of its namespace."""


@dataclass(frozen=True)
class _Verdict:
    reason: VersionReason
    message: str
    verified: ConditionStatus
    reconciling: bool = False
    stalled: bool = False


def plan_modelversion(observed: Observed, now: datetime) -> Plan:
    """The status of one ModelVersion; it has no children."""
    parent = observed.parent
    if "deletionTimestamp" in parent["metadata"]:
        return Plan(why=("the version is being deleted",))
    version = ModelVersion.model_validate({**parent, "status": None})
    old = ModelVersionStatus.model_validate(parent.get("status") or {})
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    verdict = _verdict(version, old, observed)
    name, artifact = version.metadata.name, version.spec.artifact
    facts: dict[str, Any] = {
        "observed_generation": version.metadata.generation,
        "message": verdict.message[:1024],
        "stage": stage_of(name, observed.rollouts),
        "used_by": [r["metadata"]["name"] for r in observed.rollouts if name in versions_of(r)][:USED_BY_LIMIT],
        "adapter": adapter_name(name, artifact.digest),
        "conditions": [],
    }
    done = observed.verification
    if isinstance(done, Verification) and not done.problem and not is_verified(parent):
        facts |= {"files": done.files, "bytes_": done.bytes, "verified_at": at}
    status = old.model_copy(update=facts).dump()
    status["conditions"] = _conditions(old, verdict, version.metadata.generation, at)
    return Plan(status=status, events=_events(old, verdict), why=(verdict.message,))


def is_verified(parent: Manifest) -> bool:
    """Whether its files were found to match; then they are never read again."""
    conditions = (parent.get("status") or {}).get("conditions", [])
    return any(c["type"] == VersionCondition.VERIFIED and c["status"] == "True" for c in conditions)


def stage_of(name: str, rollouts: Iterable[Manifest]) -> Stage:
    """The most public place where a version has traffic."""
    stages = [Stage.NONE]
    for rollout in rollouts:
        status = rollout.get("status") or {}
        if (status.get("stable") or {}).get("version") == name:
            stages.append(Stage.PRODUCTION)
        stages += [
            _STAGES[track["name"]]
            for track in status.get("tracks", ())
            if track["version"] == name and track["slice"] == "pin" and track["weight"] > 0
        ]
        # Not by the tracks: a candidate has no entry there on production's, nor where it displaces a pin.
        candidate = status.get("candidate") or {}
        if candidate.get("version") == name and candidate.get("weight"):
            index, steps = candidate.get("step", 0), rollout["spec"].get("strategy", {}).get("steps", [])
            stages += [_STAGES[step["track"]] for step in steps[index : index + 1]]
    return max(stages, key=_PUBLICITY.index)


def versions_of(rollout: Manifest) -> set[str]:
    """Versions that a Rollout's spec or status names, the way back included."""
    tracks = rollout.get("spec", {}).get("tracks", {}).values()
    status = rollout.get("status") or {}
    roles = (status.get(role) for role in ("stable", "previous", "candidate"))
    return {place["version"] for place in (*tracks, *roles) if place and place.get("version")}


def _verdict(version: ModelVersion, old: ModelVersionStatus, observed: Observed) -> _Verdict:
    uri, seen = version.spec.artifact.uri, observed.verification
    if is_verified(observed.parent):
        return _Verdict(VersionReason.Verified, _verified(old.files, old.bytes_), ConditionStatus.TRUE)
    match seen:
        case None:
            text = f"{uri} is being read and compared with its digest"
            return _Verdict(VersionReason.Verifying, text, ConditionStatus.UNKNOWN, reconciling=True)
        case Verification(problem=""):
            return _Verdict(VersionReason.Verified, _verified(seen.files, seen.bytes), ConditionStatus.TRUE)
        case Verification():
            text = f"{seen.problem}. The version is never served; create another one from the files as they should be"
            return _Verdict(VersionReason.DigestMismatch, text, ConditionStatus.FALSE, stalled=True)
        case ObjectNotFoundError():
            text = f"spec.artifact.uri: {seen}. It is looked for again"
            return _Verdict(VersionReason.ArtifactNotFound, text, ConditionStatus.FALSE, reconciling=True, stalled=True)
        case StorageDeniedError():
            text = f"spec.artifact.uri: the operator may not read {uri}: {seen}. It is tried again"
            return _Verdict(VersionReason.StorageDenied, text, ConditionStatus.UNKNOWN, reconciling=True, stalled=True)
    text = f"The operator cannot read {uri}: {seen}. It is tried again"
    return _Verdict(VersionReason.StorageUnavailable, text, ConditionStatus.UNKNOWN, reconciling=True)


def _verified(files: int | None, size: int | None) -> str:
    return f"Every file matches its digest: {files} files, {(size or 0) / 1e6:.1f} MB"


def _conditions(old: ModelVersionStatus, verdict: _Verdict, generation: int, at: str) -> list[Manifest]:
    ready = ConditionStatus.TRUE if verdict.verified == ConditionStatus.TRUE else ConditionStatus.FALSE
    states = {
        VersionCondition.READY: ready,
        VersionCondition.RECONCILING: ConditionStatus.TRUE if verdict.reconciling else ConditionStatus.FALSE,
        VersionCondition.STALLED: ConditionStatus.TRUE if verdict.stalled else ConditionStatus.FALSE,
        VersionCondition.VERIFIED: verdict.verified,
    }
    conditions = [c.dump() for c in old.conditions]
    for type_, state in states.items():
        conditions = set_condition(
            conditions, type_.value, state, verdict.reason, verdict.message, generation=generation, now=at
        )
    return conditions


def _events(old: ModelVersionStatus, verdict: _Verdict) -> tuple[Event, ...]:
    """One for each change of the verdict, but none for its beginning."""
    before = next((c.reason for c in old.conditions if c.type == VersionCondition.VERIFIED), None)
    if verdict.reason.name == before or verdict.reason == VersionReason.Verifying:
        return ()
    kind = "Normal" if verdict.verified == ConditionStatus.TRUE else "Warning"
    return (Event(kind, verdict.reason.name, verdict.message),)
