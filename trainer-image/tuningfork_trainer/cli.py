"""The command line, and the one place where an end becomes an exit status, a termination message and a line on stderr."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tuningfork.api.artifacts import Result
from tuningfork.api.finetunejob import DataStatus
from tuningfork.api.jobfile import EXIT_REASONS, ExitCode, TerminationReport
from tuningfork_trainer.cpus import usable_cpus
from tuningfork_trainer.errors import Interrupted, OutOfMemory, TrainerError
from tuningfork_trainer.interrupt import StopRequest
from tuningfork_trainer.job import load_job
from tuningfork_trainer.run import Run, execute, prepare_only, start_run

log = logging.getLogger("tuningfork_trainer")

MESSAGE_LIMIT = 1024
REPORT_LIMIT = 4096
"""Bytes of a container's termination message that Kubernetes keeps."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    _quiet_libraries()
    stop = StopRequest()
    stop.install()
    run: Run | None = None
    try:
        # A pod's root is read-only, and its home may be no folder.
        os.environ.setdefault("HF_HOME", str(options.workdir / "cache"))
        run = start_run(load_job(options.job), options.workdir, stop)
        code, message = _finish_prepare(prepare_only(run)) if options.command == "prepare" else _finish(execute(run))
    except BaseException as error:  # noqa: BLE001 - every end gets a status and a sentence
        code, message = _explain(error)
    stop.ignore()
    if run:
        run.progress.close()
    reason = EXIT_REASONS[code].name if code else "Succeeded"
    print(f"{reason}: {message}", file=sys.stderr)
    stage, data = (run.progress.stage, run.data) if run else ("", None)
    _write_termination(build_report(reason, message, stage, data))
    return int(code)


def build_report(reason: str, message: str, stage: str, data: DataStatus | None) -> str:
    """The termination message; the sentence is cut until all of it fits."""
    message = message.encode("utf-8", errors="backslashreplace").decode()
    for limit in (MESSAGE_LIMIT, MESSAGE_LIMIT // 2, MESSAGE_LIMIT // 4):
        short = message if len(message) <= limit else message[: limit - 3] + "..."
        report = TerminationReport(reason=reason, message=short, stage=stage, data=data)
        text = report.model_dump_json(by_alias=True, exclude_none=True)
        if len(text.encode()) <= REPORT_LIMIT:
            return text
    return report.model_copy(update={"data": None}).model_dump_json(by_alias=True, exclude_none=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tuningfork-trainer", description="Fine-tunes a model as a FineTuneJob manifest says."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "run": "the whole run; without a cluster, what it would upload lies under DIR/output",
        "prepare": "only fetch, clean and tokenise the data",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--job", type=Path, required=True, metavar="FILE", help="the FineTuneJob manifest")
        command.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="scratch space, made if absent")
    return parser.parse_args(arguments)


def _finish(result: Result) -> tuple[ExitCode, str]:
    gates = "; ".join(
        f"{g.metric} {_number(g.value)} against {_number(g.baseline)} of the baseline, ratio {_number(g.ratio)}, "
        f"at most {g.threshold:g} is accepted"
        for g in result.evaluation.gates
    )
    if not result.accepted:
        return (
            ExitCode.REJECTED,
            f"a gate did not pass: {gates}; the adapter is kept at {result.uri} and not registered",
        )
    tuned = ", ".join(f"{name} {value:.4g}" for name, value in result.evaluation.tuned.items())
    return ExitCode.OK, f"adapter at {result.uri}, {gates or tuned or 'nothing was measured'}"


def _finish_prepare(data: DataStatus) -> tuple[ExitCode, str]:
    return (
        ExitCode.OK,
        f"{data.kept} of {data.read} rows kept: {data.train} train, {data.validation} validation, {data.test} test",
    )


def _explain(error: BaseException) -> tuple[ExitCode, str]:
    """Status and sentence of an end by exception; the traceback of one that nobody foresaw goes to the log only."""
    if isinstance(error, Interrupted):
        return ExitCode.INTERRUPTED, "stopped by a signal; the next attempt goes on from the last checkpoint"
    if isinstance(error, TrainerError):
        return error.exit_code, str(error)
    if _is_out_of_memory(error):
        first = str(error).strip().splitlines()[:1]
        return (
            OutOfMemory.exit_code,
            f"memory ran out ({first[0] if first else 'no details'}); a smaller micro batch needs less",
        )
    log.error("unexpected error", exc_info=error)
    lines = str(error).strip().splitlines()
    return ExitCode.FAILED, f"{type(error).__name__}: {lines[-1] if lines else 'no message'}; the log has the traceback"


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own type, Python's, and the CPU allocator of torch, which has no type."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "MemoryError"}) or "DefaultCPUAllocator: can't allocate memory" in str(
        error
    )


def _write_termination(text: str) -> None:
    """Where the kubelet looks; on a laptop there is no such file, and none is made."""
    named = os.environ.get("TERMINATION_LOG")
    path = Path(named or "/dev/termination-log")
    if named or (path.exists() and os.access(path, os.W_OK)):
        with contextlib.suppress(OSError):
            path.write_text(text)


def _quiet_libraries() -> None:
    """Nothing is fetched from a hub and nothing is drawn; warnings of libraries are for their developers."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ.update(
        TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1"
    )
    # Threads that spin while they wait starve each other on shared cores: with other work beside it, a training step took up to
    # 9 s like that and 1.8 s without.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    logging.captureWarnings(True)
    for name in (
        "py.warnings",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "accelerate",
        "bitsandbytes",
        "botocore",
        "boto3",
        "urllib3",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
