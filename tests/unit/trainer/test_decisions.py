"""What is chosen when the job does not say, and what a gate makes of a number."""

import math
from typing import Any

import pytest

from support.tiny_model import make_job
from tuningfork.api.finetunejob import Gate, GateMetric, GateResult
from tuningfork.api.jobfile import JobFile, RunContext
from tuningfork_trainer.cpus import usable_cpus
from tuningfork_trainer.evaluate import judge
from tuningfork_trainer.machine import inspect_machine, peak_rss_bytes
from tuningfork_trainer.resolve import Resolved, count_steps, largest_divisor, resolve


def resolved(
    *, run: dict[str, Any] | None = None, examples: int = 100, parameters: int = 10**8, **changes: Any
) -> Resolved:
    job = JobFile.model_validate(make_job("s3://models/base", "s3://data/a.jsonl", **changes))
    return resolve(
        job.spec,
        RunContext.model_validate({"attempt": 1, "output": "s3://x", **run}) if run is not None else None,
        examples=examples,
        limit=64,
        parameters=parameters,
        device="cpu",
        precision="fp32",
        precision_why="because",
    )


@pytest.mark.parametrize(
    ("parameters", "changes", "run", "rate", "why"),
    [
        (135e6, {}, None, 1e-3, "LoRA on a model of 135 M parameters"),
        (1e9, {}, None, 5e-4, "LoRA on a model of 1,000 M parameters"),
        (7e9, {}, None, 2e-4, "LoRA on a model of 7,000 M parameters"),
        (7e9, {}, {"learningRate": 1e-5}, 1e-5, "chosen by the operator"),
        (7e9, {"training__learningRate": 3e-4}, {"learningRate": 1e-5}, 3e-4, "spec.training.learningRate"),
    ],
)
def test_the_learning_rate(parameters: float, changes: Any, run: Any, rate: float, why: str) -> None:
    found = resolved(**{"training__learningRate": None, **changes}, run=run, parameters=int(parameters))
    assert (found.learning_rate, found.why["learningRate"]) == (rate, why)


@pytest.mark.parametrize(
    ("effective", "asked", "micro", "accumulation"),
    [(8, None, 8, 1), (64, None, 8, 8), (64, 16, 16, 4), (12, 8, 6, 2), (7, 4, 1, 7), (4, 100, 4, 1), (2, None, 2, 1)],
)
def test_micro_batches_make_up_the_effective_batch(
    effective: int, asked: int | None, micro: int, accumulation: int
) -> None:
    found = resolved(training__effectiveBatchSize=effective, run={"microBatchSize": asked} if asked else None)
    assert (found.micro_batch_size, found.gradient_accumulation_steps) == (micro, accumulation)


@pytest.mark.parametrize(
    ("examples", "effective", "epochs", "max_steps", "steps"),
    [(100, 8, 3, None, 39), (100, 8, 3, 12, 12), (100, 8, 0.1, None, 2), (3, 8, 1, None, 1), (3, 8, 0.01, None, 1), (8, 8, 2, 5, 2)],
)  # fmt: skip
def test_steps(examples: int, effective: int, epochs: float, max_steps: int | None, steps: int) -> None:
    assert count_steps(examples, effective, epochs, max_steps) == steps


def test_a_job_that_is_longer_than_the_model_is_cut_to_it_and_says_so() -> None:
    found = resolved(training__maxSequenceLength=128)
    assert (found.max_sequence_length, found.why["maxSequenceLength"]) == (64, "the model has 64 positions")


def test_warm_up_leaves_a_step_to_train() -> None:
    assert resolved(training__maxSteps=1).warmup_steps == 0
    assert resolved(training__maxSteps=12).warmup_steps == 1


def test_the_largest_divisor_divides() -> None:
    assert [largest_divisor(12, n) for n in range(1, 14)] == [1, 2, 3, 4, 4, 6, 6, 6, 6, 6, 6, 12, 12]


@pytest.mark.parametrize(
    ("value", "baseline", "ratio", "passed"),
    [
        pytest.param(4.0, 8.0, 0.5, True, id="better"),
        pytest.param(7.2, 8.0, 0.9, True, id="just enough"),
        pytest.param(7.3, 8.0, 0.9125, False, id="not enough"),
        pytest.param(math.nan, 8.0, None, False, id="tuned is no number"),
        pytest.param(4.0, math.nan, None, False, id="baseline is no number"),
        pytest.param(4.0, math.inf, None, False, id="an infinite baseline proves nothing"),
        pytest.param(math.inf, 8.0, None, False, id="tuned is infinite"),
    ],
)
def test_a_gate(value: float, baseline: float, ratio: float | None, passed: bool) -> None:
    gate = Gate(metric=GateMetric.PERPLEXITY, max_ratio=0.9)
    assert judge(gate, value, baseline) == GateResult(
        metric="perplexity",
        value=value if math.isfinite(value) else None,
        baseline=baseline if math.isfinite(baseline) else None,
        threshold=0.9,
        ratio=ratio,
        passed=passed,
    )


def test_this_machine() -> None:
    machine = inspect_machine()
    assert machine.precision in {"bf16", "fp16", "fp32"}
    assert usable_cpus() >= 1
    assert 10**7 < peak_rss_bytes() < 10**12
