"""Every way to end: exit status, reason, and a sentence that names the thing and the fix."""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.tiny_model import Manifest, make_checkpoint, make_rows, make_tokenizer, write_job, write_jsonl
from support.trainer_calls import Trainer
from tuningfork.api.finetunejob import DataStatus
from tuningfork_trainer import run as running
from tuningfork_trainer import train as training
from tuningfork_trainer.cli import build_report, main

JobBuilder = Callable[..., Manifest]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"training__epochs": 0}, ["spec.training.epochs", "0", "greater than 0"], id="out of bounds"),
        pytest.param({"training__epohcs": 3}, ["spec.training.epohcs", "did you mean epochs?"], id="misspelt field"),
        pytest.param({"method__lora__rnak": 3}, ["spec.method.lora.rnak", "did you mean rank?"], id="misspelt deeper"),
        pytest.param({"data__sources": [{"name": "a"}]}, ["spec.data.sources[0].uri is missing"], id="missing field"),
        pytest.param({"model__uri": "hf://org/model"}, ["spec.model.uri", "hf://org/model"], id="other scheme"),
        pytest.param(
            {"data__split": {"train": 0.8, "validation": 0.1, "test": 0.3}}, ["spec.data.split", "1.2"], id="shares"
        ),
        pytest.param(
            {
                "data__split": {"train": 1, "validation": 0, "test": 0},
                "evaluation__gates": [{"metric": "perplexity", "maxRatio": 1}],
            },
            ["spec.data.split.test is 0", "gates"],
            id="a gate without a test split",
        ),
        pytest.param(
            {"evaluation": {"baseline": False, "gates": [{"metric": "perplexity", "maxRatio": 1}]}},
            ["spec.evaluation.baseline", "set it to true"],
            id="a gate without a baseline",
        ),
        pytest.param(
            {"data__sources": [{"name": "a", "uri": "file:///a.jsonl"}, {"name": "a", "uri": "file:///b.jsonl"}]},
            ["spec.data.sources[1].name", "used twice"],
            id="two sources of one name",
        ),
        pytest.param({"data__sources": [{"name": "a", "uri": "file:///a.csv"}]}, ["a.csv", ".jsonl"], id="a csv file"),
    ],
)
def test_a_wrong_job_file_is_an_invalid_spec(trainer: Trainer, job: JobBuilder, changes: Any, words: list[str]) -> None:
    ended = trainer(job(**changes))
    assert (ended.code, ended.report["reason"]) == (20, "InvalidSpec")
    assert [word for word in words if word not in ended.report["message"]] == []
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param("a: [", "is no YAML", id="no YAML"),
        pytest.param("- 1", "holds list", id="a list"),
        pytest.param("kind: Rollout", "kind: 'Rollout' is not accepted", id="another kind"),
    ],
)
def test_a_job_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["run", "--job", str(path), "--workdir", str(tmp_path)]) == 20
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        pytest.param("a.jsonl", [], "not one row", id="an empty file"),
        pytest.param("a.jsonl", ["{", "}"], "2 InvalidJSON", id="no JSON at all"),
        pytest.param("a.json", ["[1, 2"], "is no JSON", id="a broken array"),
        pytest.param(
            "a.jsonl", [{"prompt": "a", "completion": "b"}], "keys completion, prompt", id="an unknown format"
        ),
        pytest.param("a.jsonl", [{"instruction": "a", "output": ""}], "1 EmptyAnswer", id="only empty answers"),
        pytest.param(
            "a.jsonl",
            [{"instruction": "a", "output": "b " * 300}],
            "raise spec.training.maxSequenceLength",
            id="all too long",
        ),
        pytest.param("a.jsonl", [*make_rows(1), "{"], "too few", id="a single example cannot be trained on and tested"),
        pytest.param("a.jsonl", [{"messages": [{"role": "tool", "content": "x"}]}], "by 'tool'", id="an unknown role"),
    ],
)
def test_data_that_cannot_be_used(
    trainer: Trainer, job: JobBuilder, tmp_path: Path, name: str, rows: list[Any], words: str
) -> None:
    uri = write_jsonl(tmp_path / name, rows)
    ended = trainer(job(data__sources=[{"name": "support", "uri": uri}]), command="prepare")
    assert (ended.code, ended.report["reason"]) == (22, "DataUnusable")
    assert words in ended.report["message"]
    assert not (ended.output / "prepared/manifest.json").exists()


def test_data_that_does_not_exist(trainer: Trainer, job: JobBuilder, tmp_path: Path) -> None:
    uri = (tmp_path / "missing.jsonl").as_uri()
    ended = trainer(job(data__sources=[{"name": "support", "uri": uri}]))
    assert (ended.code, ended.report["reason"], ended.report["stage"]) == (21, "DataNotFound", "prepare")
    assert f"spec.data.sources[0].uri: {uri} does not exist" in ended.report["message"]


def test_a_model_that_does_not_exist(trainer: Trainer, job: JobBuilder, tmp_path: Path) -> None:
    ended = trainer(job(model__uri=(tmp_path / "missing").as_uri()))
    assert (ended.code, ended.report["reason"], ended.report["stage"]) == (23, "ModelNotFound", "fetch")


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _with(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None  # type: ignore[func-returns-value]


WRONG_MANIFEST = json.dumps({"kind": "model", "files": {"config.json": {"sha256": "0" * 64, "size": 1}}})
SHARDS = json.dumps({"weight_map": {"a": "b.safetensors"}})


def _custom_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran code of the checkpoint')")


def _unstoppable(folder: Path) -> None:
    """The engine stops at <|endoftext|>, which the template never writes."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 0}))
    (folder / "generation_config.json").unlink()
    tokenizer = make_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_pickled, "pickled weights (pytorch_model.bin)", id="pickled weights"),
        pytest.param(_without("model.safetensors"), "no .safetensors file", id="no weights"),
        pytest.param(_without("config.json"), "no config.json", id="no config"),
        pytest.param(_with("config.json", "{"), "config.json is no JSON", id="broken config"),
        pytest.param(_with("model.safetensors", "x"), "the model does not load", id="broken weights"),
        pytest.param(_with("tokenizer.json", "{}"), "tokenizer does not load", id="broken tokenizer"),
        pytest.param(_without("chat_template.jinja"), "has no chat template", id="no chat template"),
        pytest.param(_with("chat_template.jinja", "{% if %}"), "chat template", id="broken chat template"),
        pytest.param(_custom_code, "does not load", id="code of its own is not run"),
        pytest.param(_unstoppable, "would never learn to stop", id="a stop token that is not trained"),
        pytest.param(_with("model.safetensors.index.json", SHARDS), "b.safetensors", id="shards missing"),
        pytest.param(_with("manifest.json", WRONG_MANIFEST), "manifest says 1 bytes", id="not what its manifest says"),
    ],
)
def test_a_model_that_cannot_be_used(
    trainer: Trainer, job: JobBuilder, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = make_checkpoint(tmp_path / "model")
    damage(folder)
    ended = trainer(job(model__uri=folder.as_uri()))
    assert (ended.code, ended.report["reason"]) == (24, "ModelUnusable")
    assert words in ended.report["message"]


def test_target_modules_that_the_model_has_not(trainer: Trainer, job: JobBuilder) -> None:
    ended = trainer(job(method__lora={"targetModules": ["c_attn"]}))
    assert (ended.code, ended.report["reason"]) == (24, "ModelUnusable")
    assert "spec.method.lora.targetModules: c_attn" in ended.report["message"]


def test_storage_that_refuses(
    trainer: Trainer, job: JobBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    ended = trainer(job(model__uri="s3://models/base"))
    assert (ended.code, ended.report["reason"]) == (25, "StorageDenied")
    assert "s3://models/base: there are no credentials" in ended.report["message"]


def test_storage_that_does_not_answer(trainer: Trainer, job: JobBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("tuningfork_trainer.s3.RETRY_PAUSES", (0.01,))
    ended = trainer(job(model__uri="s3://models/base"))
    assert (ended.code, ended.report["reason"]) == (30, "StorageUnavailable")
    assert "http://127.0.0.1:1 does not answer" in ended.report["message"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), id="accelerator"),
        pytest.param(MemoryError(), id="Python"),
        pytest.param(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), id="host"),
    ],
)
def test_memory_that_runs_out(
    trainer: Trainer, job: JobBuilder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(training._Trainer, "training_step", fail)
    ended = trainer(job())
    assert (ended.code, ended.report["reason"], ended.report["stage"]) == (31, "OutOfMemory", "train")


def test_a_loss_that_is_no_number_ends_the_run(trainer: Trainer, job: JobBuilder, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ended = trainer(job(model__uri=folder.as_uri()))
    assert (ended.code, ended.report["reason"]) == (40, "Failed")
    assert "training diverged: the loss at step 1" in ended.report["message"]
    assert "lower spec.training.learningRate (it was 0.02)" in ended.report["message"]
    assert not (ended.output / "result.json").exists()
    assert not (ended.output / "checkpoints").exists()


def test_an_unforeseen_error_shows_its_last_line_and_logs_the_rest(
    trainer: Trainer, job: JobBuilder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("first line\nlast line")

    monkeypatch.setattr(running, "_open_model", fail)
    ended = trainer(job())
    assert (ended.code, ended.report["reason"]) == (40, "Failed")
    assert "Traceback" not in ended.report["message"] + ended.stderr
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_training_ends_at_once(
    trainer: Trainer, job: JobBuilder, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(running, "_open_model", lambda _: os.kill(os.getpid(), number))
    ended = trainer(job())
    assert (ended.code, ended.report["reason"], ended.report["stage"]) == (143, "Interrupted", "fetch")


def test_the_termination_message_fits() -> None:
    data = DataStatus(read=1, kept=1, removed={f"Reason{n}": n for n in range(40)})
    text = build_report("Failed", "ä€😀\ud800" * 2000, "train", data)
    assert len(text.encode()) <= 4096
    assert json.loads(text)["message"].endswith("...")
    assert json.loads(text)["data"]["read"] == 1


def test_nothing_is_written_where_no_kubelet_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: JobBuilder
) -> None:
    monkeypatch.delenv("TERMINATION_LOG", raising=False)
    path = write_job(tmp_path / "job.yaml", job(training__epochs=0))
    assert main(["run", "--job", str(path), "--workdir", str(tmp_path / "work")]) == 20
    assert not Path("/dev/termination-log").exists()
