"""One at a time, also when `down` deletes the lock's file while somebody waits for it."""

import threading
from pathlib import Path

import pytest

from devcluster import locks

SOON = 5.0


def test_the_second_waits_for_the_first_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    lock = tmp_path / "lock"

    def second() -> None:
        with locks.exclusive(lock, "the thing"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locks.exclusive(lock, "the thing"):
        thread.start()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join(timeout=SOON)
    assert order == ["first", "second"]
    assert "waiting for the thing" in capsys.readouterr().err


def test_a_waiter_does_not_hold_a_file_that_was_deleted(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    held = threading.Event()
    release = threading.Event()

    def waiter() -> None:
        with locks.exclusive(lock, "the thing"):
            held.set()
            release.wait(SOON)

    thread = threading.Thread(target=waiter)
    with locks.exclusive(lock, "the thing"):
        thread.start()
        thread.join(timeout=0.2)
        lock.unlink()
    assert held.wait(SOON)
    assert lock.exists(), "the waiter locked a file that nobody else can find"
    release.set()
    thread.join(timeout=SOON)
