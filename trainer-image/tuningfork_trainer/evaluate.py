"""Perplexity of answers, tuned against untuned on identical tokens, and the verdict of the gates.

Perplexity is exp(mean negative log-likelihood per answer token): summed over tokens, not averaged over batches, so batch size and
padding have no part in it. The baseline is the same model with its adapter switched off, which needs no second copy in memory.
"""

import contextlib
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from tuningfork.api.finetunejob import Evaluation, EvaluationStatus, Gate, GateResult
from tuningfork_trainer.batches import IGNORED, Collator, as_row, by_length
from tuningfork_trainer.chat import Encoded
from tuningfork_trainer.machine import Machine

log = logging.getLogger(__name__)

PERPLEXITY = "perplexity"
LOGIT_NUMBERS = 64 * 1024**2
"""Numbers in one batch's logits (256 MiB as fp32): a vocabulary of 49,152 gives 1,365 tokens a batch."""


def measure_perplexity(model: Any, examples: Sequence[Encoded], machine: Machine, pad_id: int) -> tuple[float, int]:
    """Perplexity over all answer tokens, and how many there are; infinite when it cannot be expressed."""
    collate, total, tokens = Collator(pad_id), 0.0, 0
    training = model.training
    model.eval()
    try:
        for batch in by_length(examples, LOGIT_NUMBERS // model.config.get_text_config().vocab_size):
            nll, count = _score(
                {k: v.to(model.device) for k, v in collate([as_row(e) for e in batch]).items()}, model, machine
            )
            total, tokens = total + nll, tokens + count
    finally:
        model.train(training)
    if not tokens:
        return math.nan, 0
    mean = total / tokens
    return (math.exp(mean) if mean < 700 else math.inf if mean > 0 else math.nan), tokens


def evaluate(
    model: Any, examples: Sequence[Encoded], evaluation: Evaluation, machine: Machine, pad_id: int
) -> EvaluationStatus:
    """Measures the tuned model and, if asked for, the baseline; decides the gates."""
    tuned, tokens = measure_perplexity(model, examples, machine, pad_id)
    baseline = math.nan
    if evaluation.baseline:
        with model.disable_adapter():
            baseline, _ = measure_perplexity(model, examples, machine, pad_id)
    log.info("evaluate: perplexity %.4g tuned, %.4g baseline, on %s answer tokens", tuned, baseline, tokens)
    return EvaluationStatus(
        tuned=_finite(tuned),
        baseline=_finite(baseline),
        tokens=tokens,
        gates=[judge(gate, tuned, baseline) for gate in evaluation.gates],
    )


def judge(gate: Gate, value: float, baseline: float) -> GateResult:
    """The gate's verdict. A number that does not exist passes nothing: NaN compares false, and infinity is not measured."""
    measured = math.isfinite(value) and math.isfinite(baseline) and baseline > 0
    ratio = value / baseline if measured else None
    return GateResult(
        metric=gate.metric,
        value=value if math.isfinite(value) else None,
        baseline=baseline if math.isfinite(baseline) else None,
        threshold=gate.max_ratio,
        ratio=ratio,
        passed=ratio is not None and ratio <= gate.max_ratio,
    )


def autocast(machine: Machine) -> contextlib.AbstractContextManager[Any]:
    """The forward pass as in training."""
    if machine.device == "cpu" or machine.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(machine.device, dtype=machine.dtype)


@torch.inference_mode()
def _score(inputs: dict[str, torch.Tensor], model: Any, machine: Machine) -> tuple[float, int]:
    """Summed negative log-likelihood and number of the labelled tokens of one batch."""
    with autocast(machine):
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    labels = inputs["labels"][:, 1:]
    wanted = labels != IGNORED
    nll = functional.cross_entropy(logits[:, :-1][wanted].float(), labels[wanted], reduction="sum")
    return float(nll), int(wanted.sum())


def _finite(value: float) -> dict[str, float]:
    return {PERPLEXITY: value} if math.isfinite(value) else {}
