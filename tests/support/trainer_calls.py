"""The trainer's command line, called in the test's own process: importing torch again for each call would take most of the time."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.tiny_model import Manifest, write_job
from tuningfork_trainer.cli import main


@dataclass(frozen=True)
class Ended:
    """How a call of the trainer ended."""

    code: int
    report: Manifest
    """The termination message."""
    stderr: str
    output: Path

    def result(self) -> Manifest:
        value: Manifest = json.loads((self.output / "result.json").read_text())
        return value

    def adapter(self) -> bytes:
        return (self.output / f"artifacts/{self.result()['attempt']}/adapter_model.safetensors").read_bytes()


Trainer = Callable[..., Ended]


def call_trainer(
    job: Manifest,
    command: str,
    workdir: Path,
    output: Path,
    patch: pytest.MonkeyPatch,
    captured: Callable[[], tuple[str, str]],
) -> Ended:
    termination = workdir.parent / f"{workdir.name}-termination.json"
    patch.setenv("TERMINATION_LOG", str(termination))
    path = write_job(workdir.parent / f"{workdir.name}-job.yaml", job)
    captured()
    code = main([command, "--job", str(path), "--workdir", str(workdir)])
    return Ended(code, json.loads(termination.read_text()), captured()[1], output)
