"""The status in the making: conditions first, the phase derived from them, a message that goes with both.

Nothing sets a phase. It follows from the first stage condition that does not hold, so phase and conditions cannot disagree. A job
is over without success when it is stalled and nothing is reconciled any more; stalled *and* reconciling means that a person has
to do something and the operator goes on as soon as they did.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tuningfork.api import FineTuneJobStatus
from tuningfork.api._meta import ConditionStatus, set_condition
from tuningfork.api.finetunejob import DataStatus, JobCondition, JobReason, Phase, Sizing
from tuningfork.planning.finetunejob.observed import timestamp
from tuningfork.planning.plan import Event, Manifest

STAGES = (
    JobCondition.DATA_PREPARED,
    JobCondition.SIZED,
    JobCondition.TRAINED,
    JobCondition.EVALUATED,
    JobCondition.REGISTERED,
)

_PHASES: dict[JobCondition, tuple[dict[str, Phase], Phase]] = {
    JobCondition.DATA_PREPARED: ({"Pending": Phase.PENDING}, Phase.PREPARING),
    JobCondition.SIZED: ({"NothingFits": Phase.QUEUED}, Phase.SIZING),
    JobCondition.TRAINED: (
        {"Training": Phase.TRAINING, "Evaluating": Phase.EVALUATING, "Exporting": Phase.EXPORTING},
        Phase.QUEUED,
    ),
    JobCondition.EVALUATED: ({}, Phase.EVALUATING),
    JobCondition.REGISTERED: ({}, Phase.EXPORTING),
}
"""Of the first stage that does not hold: the phase by its reason, and otherwise."""


def phase_of(conditions: Sequence[Manifest]) -> Phase:
    """The phase that the conditions mean."""
    by_type = {c["type"]: c for c in conditions}

    def holds(type_: JobCondition) -> bool:
        return by_type.get(type_, {}).get("status") == "True"

    if holds(JobCondition.READY):
        return Phase.SUCCEEDED
    if holds(JobCondition.STALLED) and not holds(JobCondition.RECONCILING):
        return Phase.REJECTED if by_type[JobCondition.STALLED]["reason"] == JobReason.GateFailed.name else Phase.FAILED
    if by_type.get(JobCondition.READY, {}).get("reason") == JobReason.Suspended.name:
        return Phase.SUSPENDED
    for stage in STAGES:
        if not holds(stage):
            reasons, otherwise = _PHASES[stage]
            return reasons.get(by_type.get(stage, {}).get("reason", "Pending"), otherwise)
    return Phase.EXPORTING


class Draft:
    """Collects what a plan wants to say; `manifest` is the status as it will stand."""

    def __init__(self, old: FineTuneJobStatus, generation: int, now: datetime) -> None:
        self.old = old
        self.now = now
        self.message = old.message
        self.events: list[Event] = []
        self._generation = generation
        self._fields: dict[str, Any] = {}
        self._conditions: list[Manifest] = [c.dump() for c in old.conditions]

    def update(self, **fields: Any) -> None:
        self._fields.update(fields)

    def stage(self, type_: JobCondition, reason: JobReason, message: str, *, done: bool = False) -> None:
        """A stage's condition."""
        self._set(type_, done, reason, message)

    def sized(self, sizing: Sizing) -> None:
        """What was chosen; the trainer adds its own choices to ``resolved`` at the end."""
        self.update(
            sizing=sizing,
            resolved={
                "microBatchSize": sizing.micro_batch_size,
                "gradientAccumulationSteps": sizing.gradient_accumulation_steps,
                "gradientCheckpointing": sizing.gradient_checkpointing,
            },
        )
        self.stage(JobCondition.SIZED, JobReason.Sized, sizing.message, done=True)

    def prepared(self, data: DataStatus) -> None:
        """The data as prepare left it."""
        removed = sum(data.removed.values())
        text = (
            f"{data.kept} of {data.read} rows kept, {removed} removed; {data.train} to train on, {data.tokens} tokens"
        )
        self.update(data=data)
        self.stage(JobCondition.DATA_PREPARED, JobReason.Prepared, text, done=True)

    def holds(self, type_: JobCondition) -> bool:
        return any(c["type"] == type_ and c["status"] == "True" for c in self._conditions)

    def forget(self, *types: JobCondition) -> None:
        """Drops conditions of stages that start over."""
        self._conditions = [c for c in self._conditions if c["type"] not in types]

    def going(self, reason: JobReason, message: str, *, stuck: bool = False) -> None:
        """The job is on its way; ``stuck``: and a person has to do something."""
        self._overall(reason, message, ready=False, reconciling=True, stalled=stuck)

    def over(self, reason: JobReason, message: str, *, accepted: bool) -> None:
        """Nothing more happens without a change."""
        self._overall(reason, message, ready=accepted, reconciling=False, stalled=not accepted)

    def resting(self, message: str) -> None:
        """Suspended: nothing is wrong and nothing happens, in whichever stage."""
        stage = next((stage for stage in STAGES if not self.holds(stage)), JobCondition.REGISTERED)
        self.stage(stage, JobReason.Suspended, message)
        self._overall(JobReason.Suspended, message, ready=False, reconciling=False, stalled=False)

    def unchanged(self) -> None:
        """Everything that was said holds for the present generation too."""
        self._conditions = [c | {"observedGeneration": self._generation} for c in self._conditions]

    def manifest(self) -> Manifest:
        """The status; a change of phase becomes an Event."""
        phase = phase_of(self._conditions)
        if phase != self.old.phase:
            kind = "Warning" if phase in {Phase.FAILED, Phase.REJECTED} else "Normal"
            self.events.append(Event(kind, phase.value, self.message))
        status = self.old.model_copy(
            update={
                **self._fields,
                "observed_generation": self._generation,
                "phase": phase,
                "message": self.message,
                "conditions": [],
            }
        ).dump()
        return status | {"conditions": self._conditions}

    def _overall(self, reason: JobReason, message: str, *, ready: bool, reconciling: bool, stalled: bool) -> None:
        self.message = message if len(message) <= 1024 else message[:1021] + "..."
        self._set(JobCondition.READY, ready, reason, message)
        self._set(JobCondition.RECONCILING, reconciling, reason, message)
        self._set(JobCondition.STALLED, stalled, reason, message)

    def _set(self, type_: JobCondition, holds: bool, reason: JobReason, message: str) -> None:
        self._conditions = set_condition(
            self._conditions,
            type_.value,
            ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
            reason,
            message,
            generation=self._generation,
            now=timestamp(self.now),
        )
