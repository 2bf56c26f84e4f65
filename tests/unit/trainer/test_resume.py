"""A run that is interrupted and goes on equals the unbroken one, bit by bit, whichever attempt wrote the checkpoint."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.tiny_model import Manifest, write_job
from support.trainer_calls import Ended, Trainer
from tuningfork_trainer import train as training
from tuningfork_trainer.checkpoints import Checkpoints
from tuningfork_trainer.errors import TrainerError
from tuningfork_trainer.store import DirectoryStore

STEPS = {"training__maxSteps": 60, "training__epochs": 100}


@pytest.fixture
def unbroken(trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path) -> Ended:
    return trainer(job(**STEPS), workdir=tmp_path / "unbroken")


def test_sigterm_saves_a_checkpoint_and_the_next_attempt_goes_on(
    trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path, unbroken: Ended
) -> None:
    output, termination = tmp_path / "store", tmp_path / "termination.json"
    first = job(run={"attempt": 1, "output": output.as_uri()}, checkpoints__everySteps=1000, **STEPS)
    path = write_job(tmp_path / "job.yaml", first)
    process = subprocess.Popen(
        [sys.executable, "-m", "tuningfork_trainer.cli", "run", "--job", path, "--workdir", tmp_path / "first"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TERMINATION_LOG": str(termination)},
    )
    assert process.stderr
    for line in process.stderr:
        if "step 7/60" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 143, rest
    assert json.loads(termination.read_text())["reason"] == "Interrupted"
    (saved,) = (output / "checkpoints/1").iterdir()
    step = int(saved.name.removeprefix("step-"))
    assert 7 <= step < 60
    assert json.loads((saved / "manifest.json").read_text())["attributes"]["step"] == step
    assert not (output / "result.json").exists()

    second = job(run={"attempt": 2, "output": output.as_uri()}, checkpoints__everySteps=1000, **STEPS)
    ended = trainer(second, workdir=tmp_path / "second", output=output)
    assert ended.code == 0
    assert ended.result()["attempt"] == 2
    assert ended.adapter() == unbroken.adapter()
    assert losses(ended) == losses(unbroken)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    trainer: Trainer,
    job: Callable[..., Manifest],
    tmp_path: Path,
    unbroken: Ended,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    output = tmp_path / "store"

    def attempt(number: int) -> Ended:
        run = {"attempt": number, "output": output.as_uri()}
        changes = {**STEPS, "checkpoints__everySteps": 9, "checkpoints__keep": 3}
        return trainer(job(run=run, **changes), workdir=tmp_path / f"work-{number}", output=output)

    with monkeypatch.context() as patch:
        fail_at(40, patch)
        assert attempt(1).code == 40
    assert sorted(p.name for p in (output / "checkpoints/1").iterdir()) == ["step-18", "step-27", "step-36"]
    damaged = output / "checkpoints/1/step-36/optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    (output / "checkpoints/1/step-27/scheduler.pt").unlink()
    ended = attempt(2)
    assert "step 36 of attempt 1 is damaged" in caplog.text
    assert "step 27 of attempt 1 is damaged" in caplog.text
    assert "resuming at step 18 of 60, saved by attempt 1" in caplog.text
    assert ended.adapter() == unbroken.adapter()


def test_a_run_that_died_after_training_does_not_train_again(
    trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path, unbroken: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "store"
    shutil.copytree(unbroken.output / "prepared", output / "prepared")
    shutil.copytree(unbroken.output / "checkpoints", output / "checkpoints")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "train", never)
    second = job(run={"attempt": 2, "output": output.as_uri()}, **STEPS)
    ended = trainer(second, workdir=tmp_path / "second", output=output)
    assert ended.code == 0
    assert ended.adapter() == unbroken.adapter()
    assert ended.result()["finalLoss"] == unbroken.result()["finalLoss"]
    assert ended.result()["evaluation"] == unbroken.result()["evaluation"]


def test_a_smaller_micro_batch_resumes_at_the_same_example(
    trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an out-of-memory the operator halves the micro batch; the effective batches stay the same ones."""
    output, seen = tmp_path / "store", list[str]()
    record_examples(seen, monkeypatch)

    def attempt(number: int, micro: int) -> Ended:
        run = {"attempt": number, "output": output.as_uri(), "microBatchSize": micro}
        return trainer(job(run=run, checkpoints__everySteps=2), workdir=tmp_path / f"work-{number}", output=output)

    with monkeypatch.context() as patch:
        fail_at(7, patch)
        attempt(1, 8)
    first = seen.copy()
    seen.clear()
    assert attempt(2, 4).code == 0
    replayed = seen.copy()
    seen.clear()
    whole = trainer(
        job(run={"attempt": 1, "output": (tmp_path / "all").as_uri(), "microBatchSize": 8}), output=tmp_path / "all"
    )
    assert whole.code == 0
    assert first[: 6 * 8] + replayed == seen


@pytest.mark.parametrize(
    ("folders", "kept"),
    [
        pytest.param({"1/step-5": 1, "1/step-10": 1}, {"1/step-10", "2/step-12"}, id="older ones go, across attempts"),
        pytest.param(
            {"1/step-90": 1, "1/step-80": 1}, {"1/step-90", "1/step-80"}, id="a straggler removes nothing newer"
        ),
        pytest.param({"1/step-11": 0}, {"2/step-12"}, id="what was never completed goes"),
    ],
)
def test_the_newest_checkpoints_are_kept(tmp_path: Path, folders: dict[str, int], kept: set[str]) -> None:
    for folder, complete in folders.items():
        target = tmp_path / "checkpoints" / folder
        target.mkdir(parents=True)
        (target / "optimizer.pt").write_bytes(b"x")
        if complete:
            (target / "manifest.json").write_text("{}")
    written = tmp_path / "local"
    written.mkdir()
    for name in ("adapter_model.safetensors", "training_args.bin"):
        (written / name).write_bytes(b"x")
    Checkpoints(DirectoryStore(tmp_path), 2, 2, "sha256:data").save(written, 12)
    found = {f"{p.parent.name}/{p.name}" for p in (tmp_path / "checkpoints").glob("*/step-*")}
    assert found == kept
    assert not list((tmp_path / "checkpoints").rglob("training_args.bin"))


def test_a_checkpoint_of_other_data_is_not_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = tmp_path / "local"
    written.mkdir()
    (written / "optimizer.pt").write_bytes(b"x")
    Checkpoints(DirectoryStore(tmp_path), 1, 2, "sha256:before").save(written, 12)
    assert Checkpoints(DirectoryStore(tmp_path), 2, 2, "sha256:after").restore(tmp_path / "resume") is None
    assert "belongs to other data" in caplog.text


def losses(ended: Ended) -> list[tuple[int, float]]:
    report = json.loads((ended.output / f"artifacts/{ended.result()['attempt']}/report.json").read_text())
    return [(entry["step"], entry["loss"]) for entry in report["history"] if "loss" in entry]


def fail_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """The process dies at the end of a step, as far as the object store can tell."""
    original = training._Hooks.on_step_end

    def die(self: object, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.global_step == step:  # type: ignore[attr-defined]
            raise TrainerError("the node is gone")
        original(self, args, state, control, **kwargs)  # type: ignore[arg-type]

    patch.setattr(training._Hooks, "on_step_end", die)


def record_examples(seen: list[str], patch: pytest.MonkeyPatch) -> None:
    """Notes every example that is trained on, in order, without its padding."""
    original = training._Trainer.training_step

    def note(self: object, model: object, inputs: Manifest, *rest: object) -> object:
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            seen.append(hashlib.sha256(str(ids[mask.bool()].tolist()).encode()).hexdigest()[:8])
        return original(self, model, inputs, *rest)

    patch.setattr(training._Trainer, "training_step", note)
