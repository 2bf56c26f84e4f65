"""Running other programs: silent when they succeed, and quoting them when they do not."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import settings
from devcluster.console import ClusterError

SHOWN_LINES = 15
"""Of a failed program's output. The cause is nearly always in the last lines."""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Stdout of a program that must succeed. `env` is added to this process's own."""
    result = attempt(argv, stdin=stdin, env=env, cwd=cwd)
    if result.returncode != 0:
        shown = tail(result.stderr or result.stdout)
        raise ClusterError(f"`{shlex.join(map(str, argv))}` ended with status {result.returncode}:\n{shown}")
    return result.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Like `run`, for a program whose failure is an answer. A program that is missing or hangs has failed, too."""
    try:
        return subprocess.run(
            list(map(str, argv)),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **settings.direct(os.environ), **(env or {})},
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(list(map(str, argv)), 127, "", str(error))
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(map(str, argv)), 124, "", f"no answer within {timeout} s")


def tail(text: str, lines: int = SHOWN_LINES) -> str:
    return "\n".join("    " + line for line in text.rstrip().splitlines()[-lines:])
