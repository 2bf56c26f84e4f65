"""Every number that training needs, decided once: what the job says, else what the operator says, else what is chosen here.

The choice and its reason go into the result, so that nobody has to guess which learning rate a model was trained with. Rates are
for LoRA on all linear layers: small models need more. 1e-3 was measured on SmolLM2-135M (evaluation loss 4.60 to 1.07 in 30
steps of 8 examples), 2e-4 is what the LoRA and QLoRA papers use for 7B and more.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from tuningfork.api.finetunejob import FineTuneJobSpec
from tuningfork.api.jobfile import RunContext
from tuningfork_trainer.errors import InvalidSpec

WARMUP_SHARE = 0.03
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
MICRO_BATCH = 8
"""Without an operator that sized it."""

_RATES = ((500e6, 1e-3), (3e9, 5e-4), (math.inf, 2e-4))
"""Learning rate by number of parameters."""


@dataclass(frozen=True)
class Resolved:
    """The settings of a run."""

    steps: int
    epochs: float
    effective_batch_size: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    max_sequence_length: int
    learning_rate: float
    scheduler: str
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    optimizer: str
    seed: int
    precision: str
    device: str
    parameters: int
    why: dict[str, str]

    def dump(self) -> dict[str, Any]:
        """For status.resolved: camelCase, reasons under ``why``."""
        return {to_camel(name): value for name, value in asdict(self).items()}


def resolve(
    spec: FineTuneJobSpec,
    run: RunContext | None,
    *,
    examples: int,
    limit: int,
    parameters: int,
    device: str,
    precision: str,
    precision_why: str,
) -> Resolved:
    """The settings for ``examples`` training examples of at most ``limit`` tokens on this machine."""
    training, why = spec.training, {"precision": precision_why}
    effective = training.effective_batch_size
    micro = largest_divisor(effective, (run and run.micro_batch_size) or min(MICRO_BATCH, effective))
    steps = count_steps(examples, effective, training.epochs, training.max_steps)
    if training.max_steps == steps:
        why["steps"] = "spec.training.maxSteps"
    if limit < training.max_sequence_length:
        why["maxSequenceLength"] = f"the model has {limit} positions"
    rate, why["learningRate"] = _learning_rate(spec, run, parameters)
    return Resolved(
        steps=steps,
        epochs=round(steps / math.ceil(examples / effective), 4),
        effective_batch_size=effective,
        micro_batch_size=micro,
        gradient_accumulation_steps=effective // micro,
        gradient_checkpointing=bool(run and run.gradient_checkpointing),
        max_sequence_length=limit,
        learning_rate=rate,
        scheduler="cosine",
        warmup_steps=min(math.ceil(WARMUP_SHARE * steps), steps - 1),
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
        optimizer="adamw",
        seed=training.seed,
        precision=precision,
        device=device,
        parameters=parameters,
        why=why,
    )


def count_steps(examples: int, effective: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps; an epoch's last batch may be smaller."""
    by_epochs = max(1, math.ceil(epochs * math.ceil(examples / effective)))
    return min(by_epochs, max_steps) if max_steps else by_epochs


def largest_divisor(number: int, at_most: int) -> int:
    """So that micro batches make up the effective batch exactly, whatever was asked for."""
    if at_most < 1:
        raise InvalidSpec(f"run.microBatchSize: {at_most} is not accepted; it must be at least 1")
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)


def _learning_rate(spec: FineTuneJobSpec, run: RunContext | None, parameters: int) -> tuple[float, str]:
    if spec.training.learning_rate is not None:
        return spec.training.learning_rate, "spec.training.learningRate"
    if run and run.learning_rate is not None:
        return run.learning_rate, "chosen by the operator"
    rate = next(rate for bound, rate in _RATES if parameters < bound)
    return rate, f"LoRA on a model of {parameters / 1e6:,.0f} M parameters"
