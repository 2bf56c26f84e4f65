"""What a person sees: one line a step, with its time, and one sentence when it cannot go on.

Everything goes to stderr; stdout carries only what was asked for (`info`, `status`), so that it can be piped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class ClusterError(Exception):
    """Something a person has to act on; its text says what. Shown without a traceback."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """`text ... done in 4 m 50 s`, on one line, begun before the work so that a long one explains the silence."""
    print(f"  {text} ... ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"failed after {duration(time.monotonic() - started)}")
        raise
    say(f"done in {duration(time.monotonic() - started)}")


def duration(seconds: float) -> str:
    """For people: 0.4 s, 12 s, 4 m 50 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"
