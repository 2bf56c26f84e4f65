"""A whole run on the tiny model: it learns, it leaves the base alone, and what it exports is what it measured."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from support.tiny_model import Manifest, make_rows, write_jsonl
from support.trainer_calls import Ended, Trainer
from tuningfork.api.artifacts import Manifest as FolderManifest
from tuningfork.api.artifacts import PreparedData, Result
from tuningfork_trainer.evaluate import measure_perplexity
from tuningfork_trainer.machine import inspect_machine
from tuningfork_trainer.prepare import load_examples


def test_the_run_is_accepted_and_says_so(finished: Ended) -> None:
    assert finished.code == 0
    assert finished.report["reason"] == "Succeeded"
    assert finished.report["stage"] == "export"
    assert "ratio" in finished.report["message"]


def test_it_learns(finished: Ended) -> None:
    report = json.loads((finished.output / "artifacts/1/report.json").read_text())
    losses = [entry["loss"] for entry in report["history"] if "loss" in entry]
    assert len(losses) == 12
    assert losses[-1] < 0.6 * losses[0]
    evaluation = Result.model_validate(finished.result()).evaluation
    assert evaluation.tuned["perplexity"] < 0.5 * evaluation.baseline["perplexity"]
    assert [gate.passed for gate in evaluation.gates] == [True]


def test_what_is_uploaded_has_the_layout_of_the_api(finished: Ended) -> None:
    files = {p.relative_to(finished.output).as_posix() for p in finished.output.rglob("*") if p.is_file()}
    checkpoint = {
        *("adapter_config.json", "adapter_model.safetensors", "manifest.json", "optimizer.pt", "rng_state.pth"),
        *("scheduler.pt", "trainer_state.json"),
    }
    adapter = {
        *("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "manifest.json", "report.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    prepared = {*("data.json", "manifest.json", "removed.jsonl", "test.jsonl", "train.jsonl", "validation.jsonl")}
    assert files == {
        "result.json",
        *(f"prepared/{name}" for name in prepared),
        *(f"checkpoints/1/step-{step}/{name}" for step in (10, 12) for name in checkpoint),
        *(f"artifacts/1/{name}" for name in adapter),
    }


@pytest.mark.parametrize("folder", ["prepared", "checkpoints/1/step-12", "artifacts/1"])
def test_every_manifest_lists_every_file_with_its_digest(finished: Ended, folder: str) -> None:
    raw = (finished.output / folder / "manifest.json").read_bytes()
    manifest = FolderManifest.model_validate_json(raw)
    found = {
        p.relative_to(finished.output / folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (finished.output / folder).rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }
    assert {name: entry.sha256 for name, entry in manifest.files.items()} == found
    assert manifest.digest() == f"sha256:{hashlib.sha256(raw).hexdigest()}"


def test_the_result_points_at_the_verified_artifacts(finished: Ended, base: Path) -> None:
    result = Result.model_validate(finished.result())
    raw = (finished.output / "artifacts/1/manifest.json").read_bytes()
    prepared = (finished.output / "prepared/manifest.json").read_bytes()
    manifest = FolderManifest.model_validate_json(raw)
    assert (result.attempt, result.accepted, result.steps) == (1, True, 12)
    assert result.uri == (finished.output / "artifacts/1").as_uri()
    assert result.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert result.data_digest == f"sha256:{hashlib.sha256(prepared).hexdigest()}"
    assert manifest.kind == "adapter"
    assert manifest.attributes == {
        "base": base.as_uri(),
        "rank": 4,
        "targetModules": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        "job": "ml/colours",
        "dataDigest": result.data_digest,
    }


def test_every_chosen_number_is_in_the_result(finished: Ended) -> None:
    resolved = finished.result()["resolved"]
    why = resolved.pop("why")
    assert resolved == {
        "steps": 12,
        "epochs": 3.0,
        "effectiveBatchSize": 8,
        "microBatchSize": 8,
        "gradientAccumulationSteps": 1,
        "gradientCheckpointing": False,
        "maxSequenceLength": 128,
        "learningRate": 0.02,
        "scheduler": "cosine",
        "warmupSteps": 1,
        "weightDecay": 0.01,
        "clipNorm": 1.0,
        "optimizer": "adamw",
        "seed": 42,
        "precision": inspect_machine().precision,
        "device": inspect_machine().device,
        "parameters": 96896,
    }
    assert why["learningRate"] == "spec.training.learningRate"


def test_prepared_data_says_what_sizing_needs(finished: Ended, base: Path) -> None:
    prepared = PreparedData.model_validate_json((finished.output / "prepared/data.json").read_bytes())
    assert prepared.data.read == prepared.data.kept == 40
    assert (prepared.data.train, prepared.data.validation, prepared.data.test) == (32, 4, 4)
    assert prepared.data.formats == {"colours": "Alpaca"}
    assert prepared.weight_bytes == (base / "model.safetensors").stat().st_size
    assert prepared.model_config_ == json.loads((base / "config.json").read_text())


def test_only_the_adapter_changed(finished: Ended, base: Path) -> None:
    """peft loads it onto a fresh base: every base weight is equal by name, every adapter weight has moved."""
    fresh = LlamaForCausalLM.from_pretrained(base)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    tuned = PeftModel.from_pretrained(fresh, finished.output / "artifacts/1")
    after = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in tuned.state_dict().items()
        if "lora_" not in name
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    adapter = load_file(finished.output / "artifacts/1/adapter_model.safetensors")
    assert len(adapter) == 2 * 7 * 2
    assert all(bool(value.abs().sum() > 0) for value in adapter.values())


def test_the_exported_adapter_measures_the_same(finished: Ended, base: Path) -> None:
    """Loaded by peft from the artifacts alone, on the base in the same precision."""
    machine = inspect_machine()
    fresh = LlamaForCausalLM.from_pretrained(base, dtype=machine.dtype)
    tuned = PeftModel.from_pretrained(fresh, finished.output / "artifacts/1")
    examples = load_examples(finished.output / "prepared", "test")
    perplexity, tokens = measure_perplexity(tuned, examples, machine, pad_id=2)
    assert perplexity == finished.result()["evaluation"]["tuned"]["perplexity"]
    assert tokens == finished.result()["evaluation"]["tokens"]


def test_the_tuned_model_answers_and_stops(trainer: Trainer, job: Callable[..., Manifest], base: Path) -> None:
    """Though the pad token is the stop token; it is loaded as an engine would, prompt by the exported chat template."""
    folder = trainer(job(training__maxSteps=60, training__epochs=100)).output / "artifacts/1"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), folder)
    question = [{"role": "user", "content": "What colour is the car number 1?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert re.fullmatch(r"It is \w+, like all\.<\|im_end\|>", tokenizer.decode(tokens))


def test_perplexity_does_not_depend_on_batches(finished: Ended, base: Path) -> None:
    machine = inspect_machine()
    model = LlamaForCausalLM.from_pretrained(base)
    examples = load_examples(finished.output / "prepared", "train")
    together, tokens = measure_perplexity(model, examples, machine, pad_id=2)
    alone = [measure_perplexity(model, [example], machine, pad_id=2) for example in examples]
    assert sum(count for _, count in alone) == tokens
    mean = sum(math.log(value) * count for value, count in alone) / tokens
    assert together == pytest.approx(math.exp(mean), rel=1e-5)


def test_the_same_job_gives_the_same_adapter(trainer: Trainer, job: Callable[..., Manifest], finished: Ended) -> None:
    again = trainer(job(evaluation__gates=[{"metric": "perplexity", "maxRatio": 0.9}]))
    assert again.adapter() == finished.adapter()


def test_micro_batches_make_up_the_same_step(trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path) -> None:
    """The loss of a step is the mean over its answer tokens, however it is cut into micro batches."""

    def first_loss(micro: int) -> float:
        output = tmp_path / f"micro-{micro}"
        run = {"attempt": 1, "output": output.as_uri(), "microBatchSize": micro}
        changes: dict[str, Any] = {"training__maxSteps": 1, "method__lora": {"dropout": 0}}
        ended = trainer(job(run=run, **changes), workdir=tmp_path / f"work-{micro}", output=output)
        assert ended.result()["resolved"]["gradientAccumulationSteps"] == 8 // micro
        return float(ended.result()["finalLoss"])

    assert first_loss(2) == pytest.approx(first_loss(8), rel=2e-3)


def test_a_finished_run_ends_at_once(trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path) -> None:
    first = trainer(job())
    files = {p: p.stat().st_mtime_ns for p in first.output.rglob("*")}
    again = trainer(job())
    assert (again.code, again.report["message"]) == (0, first.report["message"])
    assert {p: p.stat().st_mtime_ns for p in again.output.rglob("*")} == files


def test_a_failed_gate_rejects_after_everything_is_written(trainer: Trainer, job: Callable[..., Manifest]) -> None:
    gates = [{"metric": "perplexity", "maxRatio": 0.0001}]
    ended = trainer(job(evaluation__gates=gates, training__maxSteps=1))
    assert (ended.code, ended.report["reason"]) == (10, "GateFailed")
    assert ended.result()["accepted"] is False
    assert (ended.output / "artifacts/1/manifest.json").is_file()
    assert "at most 0.0001 is accepted" in ended.report["message"]
    assert trainer(job(evaluation__gates=gates, training__maxSteps=1)).code == 10


def test_prepare_alone_leaves_what_run_goes_on_from(
    trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path
) -> None:
    prepared = trainer(job(), command="prepare")
    manifest = prepared.output / "prepared/manifest.json"
    written = manifest.stat().st_mtime_ns
    assert (prepared.code, prepared.report["stage"]) == (0, "prepare")
    digest = f"sha256:{hashlib.sha256(manifest.read_bytes()).hexdigest()}"
    assert prepared.report["data"]["digest"] == digest
    assert {p.name for p in prepared.output.iterdir()} == {"prepared"}
    ran = trainer(job())
    assert ran.code == 0
    assert manifest.stat().st_mtime_ns == written
    assert ran.result()["dataDigest"] == digest


def test_damaged_prepared_data_is_made_again(
    trainer: Trainer, job: Callable[..., Manifest], caplog: pytest.LogCaptureFixture
) -> None:
    first = trainer(job(), command="prepare")
    good = (first.output / "prepared/train.jsonl").read_bytes()
    (first.output / "prepared/train.jsonl").write_bytes(good.replace(b"red", b"rad"))
    (first.output.parent / "prepared/train.jsonl").unlink()
    again = trainer(job(), command="prepare")
    assert again.code == 0
    assert "the prepared data is damaged" in caplog.text
    assert (again.output / "prepared/train.jsonl").read_bytes() == good


def test_artifacts_without_a_result_are_adopted(trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path) -> None:
    """Attempt 1 exported and died; attempt 2 only writes the result."""
    output = tmp_path / "store"
    first = trainer(job(run={"attempt": 1, "output": output.as_uri()}), output=output)
    (output / "result.json").unlink()
    second = trainer(job(run={"attempt": 2, "output": output.as_uri()}), workdir=tmp_path / "second", output=output)
    assert second.code == 0
    assert second.result()["attempt"] == 1
    assert second.report["message"] == first.report["message"]
    assert not (output / "artifacts/2").exists()


def test_a_working_directory_belongs_to_one_spec(trainer: Trainer, job: Callable[..., Manifest]) -> None:
    trainer(job(), command="prepare")
    ended = trainer(job(training__maxSteps=3), command="prepare")
    assert (ended.code, ended.report["reason"]) == (20, "InvalidSpec")
    assert "another directory" in ended.report["message"]


def test_mixed_sources_are_accounted_for(trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path) -> None:
    rows = make_rows(20)
    chat = {"messages": [{"role": "user", "content": "My mail?"}, {"role": "assistant", "content": "ann@example.com"}]}
    share = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Good day"}] * 2}
    empty = {"instruction": "What?", "output": " \n"}
    long = {"instruction": "Tell", "output": "word " * 500}
    mixed = write_jsonl(tmp_path / "mixed.jsonl", [*rows, rows[3], chat, share, empty, long, "{oops", {"x": 1}, [1]])
    ended = trainer(
        job(
            data__sources=[{"name": "mixed", "uri": mixed}],
            data__cleaning={"redactPII": ["Email"]},
        ),
        command="prepare",
    )
    data = ended.report["data"]
    assert data["removed"] == {"Duplicate": 1, "EmptyAnswer": 1, "InvalidJSON": 1, "InvalidRow": 2, "TooLong": 1}
    assert (data["read"], data["kept"], data["redacted"]) == (28, 22, {"Email": 1})
    assert data["formats"] == {"mixed": "Alpaca and OpenAIChat and ShareGPT"}
    removed = [json.loads(line) for line in (ended.output / "prepared/removed.jsonl").read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in sorted(removed, key=lambda row: row["line"])] == [
        (21, "Duplicate"),
        (24, "EmptyAnswer"),
        (25, "TooLong"),
        (26, "InvalidJSON"),
        (27, "InvalidRow"),
        (28, "InvalidRow"),
    ]
    assert "ann@example.com" not in (ended.output / "prepared/train.jsonl").read_text()
