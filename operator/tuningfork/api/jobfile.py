"""What the trainer reads and what it answers.

The job file is a FineTuneJob manifest. In a pod the operator adds a ``run`` section with what it decided; on a laptop there is
none, and the trainer writes below its working directory what it would upload. Answers are the exit status, a one-line report in
the container's termination message, progress posts, and files in the object store (see `artifacts`).
"""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tuningfork.api._base import API_VERSION, ApiModel, Message
from tuningfork.api._meta import ObjectMeta
from tuningfork.api.finetunejob import DataStatus, FineTuneJobSpec, JobReason


class Intake(ApiModel):
    """Where progress is posted. A dead intake costs no training time."""

    url: str
    """https://…/v1/progress; the body is a ProgressReport."""
    ca_file: str | None = None
    """Certificate authority of the intake."""
    token_file: str | None = None
    """Service-account token with the intake's audience."""


INTAKE_AUDIENCE = "tuningfork-intake"


class RunContext(ApiModel):
    """What the operator decided for this attempt."""

    attempt: Annotated[int, Field(ge=1)]
    """Number of the training attempt, from 1; results are written under it."""
    output: str
    """<output.uri>/<namespace>/<name>/<spec hash>."""
    micro_batch_size: int | None = None
    """Examples a forward pass."""
    gradient_checkpointing: bool | None = None
    """Recompute activations."""
    learning_rate: float | None = None
    """When spec.training.learningRate is absent."""
    intake: Intake | None = None
    """Where progress goes."""


class JobFile(ApiModel):
    """The file behind `tuningfork-trainer run --job FILE`."""

    model_config = ConfigDict(
        extra="ignore"
    )  # status and managed fields of a manifest taken from a cluster are no error

    api_version: Literal["tuningfork.dev/v1alpha1"] = API_VERSION
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: ObjectMeta
    spec: FineTuneJobSpec
    run: RunContext | None = None


class ProgressReport(ApiModel):
    """One post to the intake."""

    namespace: str
    job: str
    attempt: int
    stage: str
    """fetch, prepare, train, evaluate or export."""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    """Nats a token; absent when not finite."""
    tokens_per_second: float | None = None
    eta_seconds: int | None = None
    resumed_from_step: int | None = None


class ExitCode(IntEnum):
    """The trainer's exit status; 1, 2 and those above 125 belong to Python, the shell and signals."""

    OK = 0
    """The stage is done and its manifest written."""
    REJECTED = 10
    """Everything ran; a gate said no. An honest negative result."""
    INVALID_SPEC = 20
    """Never retried."""
    DATA_NOT_FOUND = 21
    """Never retried."""
    DATA_UNUSABLE = 22
    """Never retried."""
    MODEL_NOT_FOUND = 23
    """Never retried."""
    MODEL_UNUSABLE = 24
    """Never retried."""
    STORAGE_DENIED = 25
    """Never retried."""
    STORAGE_UNAVAILABLE = 30
    """Retried, counted."""
    OUT_OF_MEMORY = 31
    """Accelerator memory; retried with a smaller micro batch."""
    FAILED = 40
    """Anything else; retried, counted."""
    INTERRUPTED = 143
    """SIGTERM, after a checkpoint; retried, not counted."""


PERMANENT = frozenset(
    {
        ExitCode.REJECTED,
        ExitCode.INVALID_SPEC,
        ExitCode.DATA_NOT_FOUND,
        ExitCode.DATA_UNUSABLE,
        ExitCode.MODEL_NOT_FOUND,
        ExitCode.MODEL_UNUSABLE,
        ExitCode.STORAGE_DENIED,
    }
)
"""A retry would end the same way."""

EXIT_REASONS: dict[ExitCode, JobReason] = {
    ExitCode.REJECTED: JobReason.GateFailed,
    ExitCode.INVALID_SPEC: JobReason.InvalidSpec,
    ExitCode.DATA_NOT_FOUND: JobReason.DataNotFound,
    ExitCode.DATA_UNUSABLE: JobReason.DataUnusable,
    ExitCode.MODEL_NOT_FOUND: JobReason.ModelNotFound,
    ExitCode.MODEL_UNUSABLE: JobReason.ModelUnusable,
    ExitCode.STORAGE_DENIED: JobReason.StorageDenied,
    ExitCode.STORAGE_UNAVAILABLE: JobReason.StorageUnavailable,
    ExitCode.OUT_OF_MEMORY: JobReason.OutOfMemory,
    ExitCode.FAILED: JobReason.Failed,
    ExitCode.INTERRUPTED: JobReason.Interrupted,
}


class TerminationReport(ApiModel):
    """The container's termination message, at most 4,096 bytes of JSON."""

    reason: str
    """As in EXIT_REASONS, or Succeeded."""
    message: Message
    """A sentence for a person: what, where, and what to do."""
    stage: str = ""
    """The trainer's stage when it ended."""
    data: DataStatus | None = None
    """After prepare."""
