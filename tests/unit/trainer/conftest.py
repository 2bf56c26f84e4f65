"""The tiny model, made once, and a run of it that the tests look at from several sides."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch is imported

import pytest
import torch

from support.tiny_model import Manifest, make_checkpoint, make_job, make_rows, write_jsonl
from support.trainer_calls import Ended, Trainer, call_trainer


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_jsonl(tmp_path_factory.mktemp("data") / "colours.jsonl", make_rows())


@pytest.fixture
def job(base: Path, data: str) -> Callable[..., Manifest]:
    """Builds the job on the tiny model; ``changes`` as in `make_job`."""

    def build(**changes: Any) -> Manifest:
        return make_job(base.as_uri(), data, **changes)

    return build


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Trainer:
    """Calls the command line in this process."""

    def call(job: Manifest, *, command: str = "run", workdir: Path | None = None, output: Path | None = None) -> Ended:
        workdir = workdir or tmp_path / "work"
        return call_trainer(job, command, workdir, output or workdir / "output", monkeypatch, capfd.readouterr)

    return call


@pytest.fixture(scope="session")
def finished(base: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """One unbroken run of the unchanged job."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        job = make_job(base.as_uri(), data, evaluation__gates=[{"metric": "perplexity", "maxRatio": 0.9}])
        yield call_trainer(job, "run", folder, folder / "output", patch, lambda: ("", ""))


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The trainer takes SIGTERM and SIGINT for itself; pytest gets its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
