"""The run: fetch, prepare, resolve, train, evaluate, export, result. The same code in a pod and on a laptop.

Every stage is skipped when what it makes exists already: prepared/ and artifacts/ by their manifests, training by its newest
checkpoint, the whole run by result.json, which is written once. In a pod all of that lies in S3 under ``run.output``; on a laptop
there is no ``run``, and DIR/output stands for it.
"""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tuningfork.api.artifacts import ARTIFACTS, PREPARED, RESULT, Manifest, Result, spec_hash
from tuningfork.api.finetunejob import DataStatus, EvaluationStatus
from tuningfork.api.jobfile import JobFile
from tuningfork_trainer.errors import InvalidSpec, ObjectNotFound, TrainerError
from tuningfork_trainer.folders import read_manifest
from tuningfork_trainer.interrupt import StopRequest
from tuningfork_trainer.model import BaseModel
from tuningfork_trainer.prepare import load_examples, load_or_make_prepared, sequence_limit
from tuningfork_trainer.progress import Progress
from tuningfork_trainer.store import ObjectStore, open_store

if TYPE_CHECKING:  # torch takes seconds to import, and prepare does not need it
    from tuningfork_trainer.machine import Machine
    from tuningfork_trainer.resolve import Resolved

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One call of the trainer: what it was given, and how far it came."""

    job: JobFile
    workdir: Path
    output: ObjectStore
    progress: Progress
    stop: StopRequest
    data: DataStatus | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def attempt(self) -> int:
        return self.job.run.attempt if self.job.run else 1

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Reports the stage, and measures how long it takes."""
        self.progress.enter(name)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


def start_run(job: JobFile, workdir: Path, stop: StopRequest) -> Run:
    """Opens the output; raises `InvalidSpec` for a working directory that belongs to another spec."""
    attempt = job.run.attempt if job.run else 1
    if not job.run:
        _claim(workdir, spec_hash(job.spec))
    output = open_store(job.run.output if job.run else (workdir / "output").absolute().as_uri())
    intake = job.run.intake if job.run else None
    progress = Progress(job.metadata.namespace, job.metadata.name, attempt, intake)
    return Run(job, workdir, output, progress, stop)


def prepare_only(run: Run) -> DataStatus:
    """The prepare Job: data, tokeniser and config, no weights."""
    with run.stage("fetch"):
        model = _open_model(run)
    with run.stage("prepare"):
        data, _ = _prepare(run, model)
    return data


def execute(run: Run) -> Result:
    """The whole run; its result is the one in the store, whichever attempt wrote it."""
    if found := _read_result(run.output):
        log.info("this run is over already: attempt %s wrote %s/%s", found.attempt, run.output.uri, RESULT)
        return found
    if adopted := _find_artifacts(run):
        return _publish_result(run, *adopted)
    with run.stage("fetch"):
        model = _open_model(run)
        model.fetch_weights()
    with run.stage("prepare"):
        data, tokenizer = _prepare(run, model)
    return _train_and_publish(run, model, tokenizer, data)


def _train_and_publish(run: Run, model: BaseModel, tokenizer: Any, data: DataStatus) -> Result:
    from tuningfork_trainer.evaluate import evaluate

    with run.stage("train"):
        tuned, machine, resolved = _load(run, model, data)
        history = _train(run, tuned, tokenizer, machine, resolved, data)
    with run.stage("evaluate"):
        test, pad_id = load_examples(run.workdir / PREPARED, "test"), tokenizer.pad_token_id
        measured = evaluate(tuned, test, run.job.spec.evaluation, machine, pad_id) if test else EvaluationStatus()
    with run.stage("export"):
        manifest, report = _export(run, tuned, tokenizer, resolved, data, measured, history)
        return _publish_result(run, run.attempt, manifest, report)


def _load(run: Run, model: BaseModel, data: DataStatus) -> "tuple[Any, Machine, Resolved]":
    """The base with a fresh adapter on this machine, and every number of the training."""
    from tuningfork_trainer.machine import inspect_machine
    from tuningfork_trainer.resolve import resolve
    from tuningfork_trainer.train import build_adapter

    spec, machine = run.job.spec, inspect_machine()
    base = model.load_weights(machine.dtype)
    resolved = resolve(
        spec,
        run.job.run,
        examples=data.train,
        limit=sequence_limit(spec, model.config()),
        parameters=sum(p.numel() for p in base.parameters()),
        device=machine.device,
        precision=machine.precision,
        precision_why=machine.why,
    )
    log.info(
        "resolved: %s steps of %s examples (%s x %s), learning rate %g, %s on %s",
        *(
            resolved.steps,
            resolved.effective_batch_size,
            resolved.micro_batch_size,
            resolved.gradient_accumulation_steps,
        ),
        *(resolved.learning_rate, resolved.precision, resolved.device),
    )
    return build_adapter(base, spec.method.lora, spec.training.seed).to(machine.device), machine, resolved


def _train(
    run: Run, tuned: Any, tokenizer: Any, machine: "Machine", resolved: "Resolved", data: DataStatus
) -> list[dict[str, Any]]:
    """Trains from the newest checkpoint on, if there is one; returns the log of all steps."""
    from tuningfork_trainer import train as training
    from tuningfork_trainer.checkpoints import Checkpoints

    spec, prepared = run.job.spec, run.workdir / PREPARED
    checkpoints = Checkpoints(run.output, run.attempt, spec.checkpoints.keep, str(data.digest))
    resume = checkpoints.restore(run.workdir / "resume")
    run.progress.update(total_steps=resolved.steps)
    if resume:
        log.info("resuming at step %s of %s, saved by attempt %s", resume.step, resolved.steps, resume.attempt)
        run.progress.update(step=resume.step, resumed_from_step=resume.step)
        if resume.step >= resolved.steps:
            training.load_adapter(tuned, resume)
            return resume.history()
    examples = training.TrainingData(
        load_examples(prepared, "train"), load_examples(prepared, "validation"), tokenizer.pad_token_id
    )
    return training.train(
        tuned,
        tokenizer,
        examples,
        resolved,
        machine,
        checkpoints=checkpoints,
        every_steps=spec.checkpoints.every_steps,
        resume=resume,
        stop=run.stop,
        progress=run.progress,
        workdir=run.workdir,
    )


def _open_model(run: Run) -> BaseModel:
    model = BaseModel(open_store(run.job.spec.model.uri), run.workdir / "model")
    model.fetch_small()
    model.weight_files()  # missing or pickled weights are refused now, and not after the data was prepared
    model.config()  # a broken one is better said here than by whatever library reads it first
    return model


def _prepare(run: Run, model: BaseModel) -> tuple[DataStatus, Any]:
    tokenizer = model.load_tokenizer()
    prepared = load_or_make_prepared(run.job.spec, model, model.encoder(tokenizer), run.output, run.workdir)
    run.data = data = prepared.data
    removed = ", ".join(f"{count} {reason}" for reason, count in data.removed.items()) or "none"
    log.info("data: %s rows read, %s kept, removed: %s", data.read, data.kept, removed)
    log.info(
        "data: %s train, %s validation, %s test; %s train tokens", data.train, data.validation, data.test, data.tokens
    )
    return data, tokenizer


def _export(
    run: Run,
    model: Any,
    tokenizer: Any,
    resolved: "Resolved",
    data: DataStatus,
    evaluation: EvaluationStatus,
    history: list[dict[str, Any]],
) -> tuple[Manifest, dict[str, Any]]:
    import torch

    from tuningfork_trainer import export
    from tuningfork_trainer.machine import peak_rss_bytes
    from tuningfork_trainer.train import final_loss

    spec, folder = run.job.spec, run.workdir / ARTIFACTS
    export.write_adapter(model, tokenizer, spec.model.uri, folder)
    report = {
        "job": run.job.metadata.name,
        "namespace": run.job.metadata.namespace,
        "attempt": run.attempt,
        "steps": resolved.steps,
        "finalLoss": final_loss(history),
        "resolved": resolved.dump(),
        "data": data.dump(),
        "evaluation": evaluation.dump(),
        "history": history,
        "seconds": run.seconds,
        "peakRssBytes": peak_rss_bytes(),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }
    attributes = {
        "base": spec.model.uri,
        "rank": spec.method.lora.rank,
        "targetModules": export.target_modules(model),
        "job": f"{run.job.metadata.namespace}/{run.job.metadata.name}",
        "dataDigest": data.digest,
    }
    report = _without_infinities(report)
    return export.publish(run.output, run.attempt, folder, report=report, attributes=attributes), report


def _publish_result(run: Run, attempt: int, manifest: Manifest, report: dict[str, Any]) -> Result:
    """Writes result.json unless another attempt did; then that one counts."""
    evaluation = EvaluationStatus.model_validate(report["evaluation"])
    result = Result(
        attempt=attempt,
        uri=run.output.at(f"{ARTIFACTS}/{attempt}").uri,
        digest=manifest.digest(),
        accepted=all(gate.passed for gate in evaluation.gates),
        evaluation=evaluation,
        data_digest=report["data"].get("digest"),
        final_loss=report["finalLoss"],
        steps=report["steps"],
        resolved=report["resolved"],
    )
    if run.output.write(
        RESULT, (result.model_dump_json(by_alias=True, exclude_none=True) + "\n").encode(), only_if_absent=True
    ):
        return result
    return _read_result(run.output) or result


def _read_result(output: ObjectStore) -> Result | None:
    try:
        return Result.model_validate_json(output.read(RESULT))
    except ObjectNotFound:
        return None
    except ValidationError as error:
        raise TrainerError(
            f"{output.uri}/{RESULT} is damaged ({error.errors()[0]['msg']}); delete it to run again"
        ) from error


def _find_artifacts(run: Run) -> tuple[int, Manifest, dict[str, Any]] | None:
    """Artifacts that an attempt finished without living to write the result."""
    for attempt in range(run.attempt, 0, -1):
        store = run.output.at(f"{ARTIFACTS}/{attempt}")
        if manifest := read_manifest(store):
            log.info("attempt %s has exported its artifacts already", attempt)
            return attempt, manifest, json.loads(store.read("report.json"))
    return None


def _claim(workdir: Path, hash_: str) -> None:
    """A laptop's working directory holds one spec's results; a changed job must not find another's."""
    workdir.mkdir(parents=True, exist_ok=True)
    marker = workdir / "spec-hash"
    owner = marker.read_text().strip() if marker.is_file() else hash_
    if owner != hash_:
        raise InvalidSpec(
            f"--workdir {workdir} holds the run of another spec ({owner}, this is {hash_}); use another directory"
        )
    marker.write_text(f"{hash_}\n")


def _versions() -> dict[str, str]:
    names = ("tuningfork", "torch", "transformers", "peft", "trl", "tokenizers")
    return {name: version(name) for name in names}


def _without_infinities(value: Any) -> Any:
    """JSON has no numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _without_infinities(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_infinities(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
