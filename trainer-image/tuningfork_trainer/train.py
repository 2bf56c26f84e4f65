"""The train stage: LoRA on the answers' tokens.

TRL's SFTTrainer does the loop. Examples come to it tokenised and labelled (its own labelling needs ``{% generation %}`` markers
in the template); what it adds to transformers' Trainer is a loss in chunks that never holds a batch's full logits, which are the
largest tensor of a small model with a large vocabulary, and the family of trainers for further objectives. Ours are the
checkpoints, the stop at a step's end, and the refusal to go on with a loss that is no number.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PrinterCallback, Trainer, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer

from tuningfork.api.finetunejob import LoRA
from tuningfork_trainer.batches import Collator, as_row
from tuningfork_trainer.chat import Encoded
from tuningfork_trainer.checkpoints import Checkpoint, Checkpoints
from tuningfork_trainer.errors import ModelUnusable, TrainerError
from tuningfork_trainer.evaluate import measure_perplexity
from tuningfork_trainer.interrupt import StopRequest
from tuningfork_trainer.machine import Machine
from tuningfork_trainer.model import first_line
from tuningfork_trainer.progress import Progress, Speed
from tuningfork_trainer.resolve import Resolved

log = logging.getLogger(__name__)

ALL_LINEAR = "all-linear"
LOGGED_STEPS = 1000
"""At most about so many lines and points of the loss curve a run."""
WATCHES = 4
"""How often the validation split is measured; less often in a run of under 40 steps, where it would take longer than training."""


@dataclass(frozen=True)
class TrainingData:
    """What is trained on and what is watched."""

    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    pad_id: int


def build_adapter(base: Any, lora: LoRA, seed: int) -> Any:
    """The base with a fresh adapter; the base's weights are frozen. Raises `ModelUnusable` when no module has the names."""
    set_seed(seed)
    targets: str | list[str] = ALL_LINEAR if lora.target_modules == [ALL_LINEAR] else list(lora.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise ModelUnusable(
            f"spec.method.lora.targetModules: {', '.join(lora.target_modules)} does not fit this model ({first_line(error)}); "
            f"use {ALL_LINEAR}"
        ) from error


def load_adapter(model: PeftModel, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's adapter in place of the fresh one."""
    model.load_adapter(str(checkpoint.folder), "default", is_trainable=True)


def train(
    model: Any,
    tokenizer: Any,
    data: TrainingData,
    resolved: Resolved,
    machine: Machine,
    *,
    checkpoints: Checkpoints,
    every_steps: int,
    resume: Checkpoint | None,
    stop: StopRequest,
    progress: Progress,
    workdir: Path,
) -> list[dict[str, Any]]:
    """Trains up to the last step and returns the log; the model is tuned in place. Raises `Interrupted` after a checkpoint."""
    hooks = _Hooks(resolved, data, machine, checkpoints, stop, progress)
    trainer = _Trainer(
        model=model,
        args=build_arguments(resolved, machine, every_steps, workdir / "checkpoints"),
        train_dataset=Dataset.from_list([as_row(example) for example in data.train]),
        data_collator=Collator(data.pad_id),
        processing_class=tokenizer,
        callbacks=[hooks],
    )
    trainer.remove_callback(PrinterCallback)
    with stop.deferred():
        trainer.train(resume_from_checkpoint=str(resume.folder) if resume else None)
    history: list[dict[str, Any]] = trainer.state.log_history
    return history


def build_arguments(resolved: Resolved, machine: Machine, every_steps: int, folder: Path) -> SFTConfig:
    """Trainer's settings. Whatever would load, upload or guess by itself is switched off."""
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=resolved.steps,
        per_device_train_batch_size=resolved.micro_batch_size,
        gradient_accumulation_steps=resolved.gradient_accumulation_steps,
        gradient_checkpointing=resolved.gradient_checkpointing,
        learning_rate=resolved.learning_rate,
        lr_scheduler_type=resolved.scheduler,
        warmup_steps=resolved.warmup_steps,
        weight_decay=resolved.weight_decay,
        max_grad_norm=resolved.clip_norm,
        seed=resolved.seed,
        use_cpu=machine.device == "cpu",
        # On the CPU the frozen weights are bf16 and adapters compute in fp32: autocast would only add casts there.
        bf16=machine.device == "cuda" and machine.precision == "bf16",
        fp16=machine.device == "cuda" and machine.precision == "fp16",
        logging_steps=max(1, resolved.steps // LOGGED_STEPS),
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would replace a loss that is no number by the average before it
        include_num_input_tokens_seen="non_padding",
        save_strategy="steps",
        save_steps=every_steps,
        save_total_limit=1,  # locally: the store keeps what the job asks for
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=machine.device == "cuda",
    )
    if arguments.n_gpu > 1:  # one process drives one accelerator; DataParallel would change the effective batch
        arguments._n_gpu = 1
    return arguments


class _Trainer(SFTTrainer):  # type: ignore[misc]
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Without TRL's model card."""
        Trainer._save_checkpoint(self, model, trial)


class _Hooks(TrainerCallback):  # type: ignore[misc]
    """What happens at the end of a step, of a log line and of a checkpoint."""

    def __init__(
        self,
        resolved: Resolved,
        data: TrainingData,
        machine: Machine,
        checkpoints: Checkpoints,
        stop: StopRequest,
        progress: Progress,
    ):
        self._resolved, self._data, self._machine = resolved, data, machine
        self._checkpoints, self._stop, self._progress = checkpoints, stop, progress
        self._speed = Speed()
        self._watch_every = math.ceil(resolved.steps / min(WATCHES, math.ceil(resolved.steps / 10)))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._mark(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._stop.requested:
            control.should_save = control.should_training_stop = True
        elif self._data.validation and state.global_step % self._watch_every == 0:
            perplexity, _ = measure_perplexity(kwargs["model"], self._data.validation, self._machine, self._data.pad_id)
            log.info("step %s: perplexity of the validation split %.4g", state.global_step, perplexity)
            state.log_history.append({"step": state.global_step, "validation_perplexity": perplexity})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" not in logs:
            return
        step, total, loss = state.global_step, state.max_steps, float(logs["loss"])
        if not math.isfinite(loss):
            raise diverged(step, self._resolved.learning_rate)
        self._mark(state)
        speed, eta = self._speed.measure(total)
        log.info("step %s/%s  loss %.4f  %s", step, total, loss, _pace(speed, eta))
        self._progress.update(step=step, total_steps=total, loss=loss, tokens_per_second=speed, eta_seconds=eta)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainable = (p for p in kwargs["model"].parameters() if p.requires_grad)
        if not all(bool(torch.isfinite(p).all()) for p in trainable):
            raise diverged(state.global_step, self._resolved.learning_rate)
        self._checkpoints.save(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

    def _mark(self, state: Any) -> None:
        self._speed.mark(state.global_step, int(state.num_input_tokens_seen), time.monotonic())


def diverged(step: int, rate: float) -> TrainerError:
    """The end of a run whose loss or weights are no numbers any more."""
    return TrainerError(
        f"training diverged: the loss at step {step} is no finite number; lower spec.training.learningRate (it was {rate:g}) "
        "or look for damaged examples"
    )


def final_loss(history: Sequence[dict[str, Any]]) -> float | None:
    """Loss of the last logged step."""
    return next((float(entry["loss"]) for entry in reversed(history) if "loss" in entry), None)


def _pace(speed: float | None, eta: int | None) -> str:
    if speed is None or eta is None:
        return ""
    return f"{speed:,.0f} tokens/s  {eta // 3600}:{eta // 60 % 60:02}:{eta % 60:02} left"
