"""Object metadata, conditions, and the labels, annotations and names that all parts agree on."""

import hashlib
from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from tuningfork.api._base import GROUP, ApiModel, Message, Timestamp

LABEL_JOB = f"{GROUP}/job"
"""On Jobs and pods of a FineTuneJob: its name."""
LABEL_JOB_UID = f"{GROUP}/job-uid"
"""On ModelVersions: the uid of the FineTuneJob that made them. A job finds its own version by it."""
LABEL_ROLLOUT = f"{GROUP}/rollout"
LABEL_MODEL = f"{GROUP}/model"
LABEL_STAGE = f"{GROUP}/stage"
"""On Jobs and pods of a FineTuneJob: ``prepare`` or ``train``."""
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_COMPONENT = f"{GROUP}/component"
"""On pods: ``operator``, ``trainer``, ``engine`` or ``router``."""

ANNOTATION_COMMANDS = {verb: f"{GROUP}/{verb}" for verb in ("promote", "promote-full", "abort", "retry")}
"""Commands. The value is ``<candidate>/<step>/<nonce>``; the last handled value stands in status and is never acted on again."""

FIELD_MANAGER = "tuningfork"


class ObjectMeta(ApiModel):
    """The part of Kubernetes' metadata that TuningFork reads; the rest passes through untouched."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class ConditionStatus(StrEnum):
    """Kubernetes' three values; Unknown is a value of its own and never reported as False."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """A condition as in metav1.Condition."""

    type: str = Field(max_length=64)
    """What is stated, for example Ready."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: str = Field(max_length=64)
    """Why, as one word from the documented list."""
    message: Message = ""
    """Why, as a sentence, with the next thing to do when something is wrong."""
    observed_generation: int = 0
    """The metadata.generation that this was decided for."""
    last_transition_time: Timestamp
    """When the status last changed, RFC 3339."""


class Reason(Enum):
    """Base of the reasons: the value is the sentence that the reference docs show, the name is the reason itself.

    Members are named in CamelCase because they appear on objects as they are.
    """

    def __str__(self) -> str:
        return self.name


class CommonReason(Reason):
    """Reasons that conditions of every kind can have."""

    ReconcileError = "Something that the object needs cannot be written; the message says what, and it is tried again."


def set_condition(
    conditions: Sequence[dict[str, Any]],
    type_: str,
    status: ConditionStatus,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: str,
) -> list[dict[str, Any]]:
    """The conditions with one of them set; its transition time stays when its status does.

    ``now`` is RFC 3339. Order is kept, a new type goes to the end, messages are cut at 1024 characters.
    """
    old = next((c for c in conditions if c["type"] == type_), None)
    new = {
        "type": type_,
        "status": str(status),
        "reason": reason.name,
        "message": message if len(message) <= 1024 else message[:1021] + "...",
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old and old["status"] == str(status) else now,
    }
    if old is None:
        return [*conditions, new]
    return [new if c["type"] == type_ else dict(c) for c in conditions]


def derived_name(parts: Sequence[str], limit: int = 63) -> str:
    """A deterministic name of a child: the parts joined by dashes, shortened with a hash when longer than ``limit``.

    The hash covers all parts, so that two long names which share a beginning stay apart.
    """
    name = "-".join(parts)
    if len(name) <= limit:
        return name
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-')}-{digest}"
