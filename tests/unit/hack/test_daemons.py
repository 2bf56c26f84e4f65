"""Processes are found again by a later run, and a stranger with the same pid is never taken for ours."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devcluster import probes
from devcluster.console import ClusterError
from devcluster.daemons import Daemon, Daemons, start_ticks, terminate

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def ready() -> bool:
    return True


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path)
    yield daemons
    daemons.stop(daemons.names())


def test_a_daemon_is_found_again_and_started_only_once(daemons: Daemons) -> None:
    daemon = Daemon("sleeper", SLEEP, ready)
    assert daemons.ensure(daemon, within=5)
    assert not Daemons(daemons.state).ensure(daemon, within=5)
    assert Daemons(daemons.state).names() == ["sleeper"]


def test_a_stopped_daemon_leaves_no_process_and_no_record(daemons: Daemons) -> None:
    daemons.start(Daemon("sleeper", SLEEP, ready))
    pid = daemons.pid("sleeper")
    assert pid is not None
    daemons.stop(["sleeper"])
    assert start_ticks(pid) is None
    assert daemons.names() == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda record: record | {"startTicks": 1}, id="the pid was reused"),
        pytest.param(lambda record: record | {"bootId": "another"}, id="the machine was rebooted"),
        pytest.param(lambda record: record | {"pid": 2**22 + 1}, id="the process is gone"),
        pytest.param(lambda record: {}, id="the record is incomplete"),
    ],
)
def test_a_record_that_does_not_fit_is_nobody(daemons: Daemons, spoil: Callable[[dict[str, object]], object]) -> None:
    path = daemons.state / "daemons" / "me.json"
    path.parent.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mine: dict[str, object] = {"pid": os.getpid(), "startTicks": start_ticks(os.getpid()), "bootId": boot}
    path.write_text(json.dumps(mine))
    assert daemons.pid("me") == os.getpid()
    path.write_text(json.dumps(spoil(mine)))
    assert daemons.pid("me") is None
    path.unlink()


def test_a_record_cut_off_by_a_crash_is_nobody(daemons: Daemons) -> None:
    path = daemons.state / "daemons" / "cut.json"
    path.parent.mkdir()
    path.write_text('{"pid": 12')
    assert daemons.pid("cut") is None


def test_a_daemon_that_dies_while_starting_is_quoted(daemons: Daemons) -> None:
    dying = Daemon("dying", [sys.executable, "-c", "import sys; sys.exit('no such flag: --frobnicate')"], lambda: False)
    daemons.start(dying)
    with pytest.raises(ClusterError) as caught:
        daemons.wait_ready(dying, within=10)
    assert "dying died while starting" in str(caught.value)
    assert "no such flag: --frobnicate" in str(caught.value)
    assert str(daemons.log("dying")) in str(caught.value)


def test_a_daemon_that_ignores_sigterm_is_killed(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devcluster.daemons.TERMINATION_SECONDS", 0.5)
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    daemon = Daemon("deaf", [sys.executable, "-c", code], lambda: "deaf" in daemons.log("deaf").read_text())
    daemons.ensure(daemon, within=10)
    pid = daemons.pid("deaf")
    assert pid is not None
    terminate([pid])
    assert start_ticks(pid) is None


def test_a_port_that_nobody_listens_on_is_an_answer_not_an_error() -> None:
    assert not probes.http_ok("http://127.0.0.1:1/")
    assert not probes.listens("127.0.0.1", 1)
    assert not probes.socket_accepts(Path("/nonexistent.sock"))
