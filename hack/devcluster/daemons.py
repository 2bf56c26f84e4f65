"""Long-running processes: started detached, found again by a later run, and never confused with a stranger.

A pid alone is not an identity: after a `kill -9` or a reboot the number may belong to somebody else. A record therefore
holds the boot id and the start time of the process as well, and only a process that matches all three is ours. There is
no supervisor: this is a development cluster, and a daemon that died is brought back by the next `up`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcluster import settings
from devcluster.console import ClusterError
from devcluster.shell import tail

POLL_SECONDS = 0.1
TERMINATION_SECONDS = 3.0
"""Between SIGTERM and SIGKILL. Nothing here has state that is worth more time."""


@dataclass(frozen=True)
class Daemon:
    """What to run, and how to see that it works. `ready` answers now, without waiting."""

    name: str
    argv: Sequence[str | Path]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)


class Daemons:
    """The daemons of one cluster: records in `state`/daemons, logs in `state`/logs."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def start(self, daemon: Daemon) -> None:
        log_path = self.log(daemon.name)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                list(map(str, daemon.argv)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **settings.direct(os.environ), **daemon.env},
            )
        record = {"pid": process.pid, "startTicks": start_ticks(process.pid), "bootId": boot_id()}
        path = self._record(daemon.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))

    def wait_ready(self, daemon: Daemon, within: float) -> None:
        """Return when it is ready. When it dies or takes too long, show why."""
        deadline = time.monotonic() + within
        while not daemon.ready():
            if self.pid(daemon.name) is None:
                raise ClusterError(f"{daemon.name} died while starting. {self._last_words(daemon.name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{daemon.name} was not ready after {within:.0f} s. {self._last_words(daemon.name)}")
            time.sleep(POLL_SECONDS)

    def ensure(self, daemon: Daemon, within: float) -> bool:
        """Start it unless it runs, and wait until it is ready. Says whether it had to be started."""
        running = self.pid(daemon.name) is not None
        if not running:
            self.start(daemon)
        self.wait_ready(daemon, within)
        return not running

    def pid(self, name: str) -> int | None:
        """The pid of our daemon of that name, if that very process still runs."""
        try:
            record = json.loads(self._record(name).read_text())
            pid, ticks, boot = int(record["pid"]), record["startTicks"], record["bootId"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # never started, or the record was cut off by a crash
        return pid if boot == boot_id() and ticks is not None and start_ticks(pid) == ticks else None

    def names(self) -> list[str]:
        return sorted(path.stem for path in (self.state / "daemons").glob("*.json"))

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def stop(self, names: Iterable[str]) -> None:
        terminate(pid for name in names if (pid := self.pid(name)) is not None)
        for name in names:
            self._record(name).unlink(missing_ok=True)

    def _record(self, name: str) -> Path:
        return self.state / "daemons" / f"{name}.json"

    def _last_words(self, name: str) -> str:
        log = self.log(name)
        return f"The end of its log, {log}:\n{tail(log.read_text(errors='replace'))}"


def terminate(pids: Iterable[int]) -> None:
    """End processes, gently first. Identity is pid and start time, so a reused number is never hit."""
    waiting = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    for sign, patience in ((signal.SIGTERM, TERMINATION_SECONDS), (signal.SIGKILL, TERMINATION_SECONDS)):
        for pid in waiting:
            _signal(pid, sign)
        deadline = time.monotonic() + patience
        while waiting and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)
            waiting = {pid: ticks for pid, ticks in waiting.items() if start_ticks(pid) == ticks}


def _signal(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        os.kill(pid, sign)


def start_ticks(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None for one that is gone or a zombie."""
    try:
        # The command's name stands in parentheses and may hold anything, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
