"""One at a time, across processes and checkouts: two `up` never build or start the same thing twice.

flock, because the kernel releases it when its holder dies. `down` deletes the lock's file, so a waiter that gets the lock
checks that the file it locked is still the one at that path.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.console import say


@contextmanager
def exclusive(path: Path, waiting_for: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = _acquire(path, waiting_for)
    try:
        yield
    finally:
        os.close(fd)


def _acquire(path: Path, waiting_for: str) -> int:
    told = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                say(f"  waiting for {waiting_for} (another hack/cluster is at it)")
                told = True
            fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_still_at(fd, path):
            return fd
        os.close(fd)


def _is_still_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
