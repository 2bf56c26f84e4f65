"""From the name in a track to a version that may serve, or to the reason why it may not."""

import hashlib
import json

from tuningfork.api import ModelVersion, RolloutSpec
from tuningfork.api._meta import ConditionStatus
from tuningfork.api.modelversion import VersionCondition, adapter_name
from tuningfork.api.rollout import RolloutReason, VersionRef
from tuningfork.planning.rollout.draft import Draft, Obstacle
from tuningfork.planning.rollout.observed import RolloutObserved


def walk_hash(spec: RolloutSpec) -> str:
    """Of what decides a walk; replicas and tracks do not."""
    deciding = {
        "strategy": spec.strategy.dump(),
        "analysis": spec.analysis.dump(),
        "base": spec.serving.base.dump(),
        "engine": spec.serving.engine.dump(),
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:10]


def resolve(observed: RolloutObserved, draft: Draft, name: str) -> VersionRef | Obstacle:
    """The version, if it exists, is verified and belongs to our base model."""
    version = observed.versions.get(name)
    if version is None:
        return Obstacle(RolloutReason.WaitingForVersion, f"ModelVersion {name} does not exist")
    base = observed.rollout.spec.serving.base.uri
    if version.spec.base.uri.rstrip("/") != base.rstrip("/"):
        message = f"ModelVersion {name} is an adapter of {version.spec.base.uri}, but spec.serving.base is {base}"
        return Obstacle(RolloutReason.VersionUnusable, message)
    verified, said = _verified(version)
    if verified is ConditionStatus.FALSE:
        return Obstacle(RolloutReason.VersionUnusable, f"ModelVersion {name} failed verification: {said}")
    ref = _reference(version)
    if verified is not ConditionStatus.TRUE and not _was_accepted(ref, draft):
        message = f"ModelVersion {name} is not verified yet" + (f": {said}" if said else "")
        return Obstacle(RolloutReason.WaitingForVersion, message)
    return ref


def is_same(one: VersionRef | None, other: VersionRef | None) -> bool:
    """The same content under the same name."""
    return one is not None and other is not None and (one.version, one.digest) == (other.version, other.digest)


def _reference(version: ModelVersion) -> VersionRef:
    name, artifact = version.metadata.name, version.spec.artifact
    return VersionRef(
        version=name, digest=artifact.digest, uri=artifact.uri, adapter=adapter_name(name, artifact.digest)
    )


def _verified(version: ModelVersion) -> tuple[ConditionStatus, str]:
    conditions = version.status.conditions if version.status else []
    found = next((c for c in conditions if c.type == VersionCondition.VERIFIED), None)
    return (found.status, found.message) if found else (ConditionStatus.UNKNOWN, "")


def _was_accepted(ref: VersionRef, draft: Draft) -> bool:
    """Verified once is verified: the digest names the content, and a store that is away now takes nobody's traffic."""
    return any(is_same(ref, known) for known in (draft.stable, draft.candidate, draft.previous))
