"""Operators as processes of this machine, each on an address of its own: started, asked, killed."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from support.api_server import ROOT

READY_SECONDS = 60.0
"""Imports, discovery and the first lists, on a machine that is busy with other tests."""


@dataclass
class OperatorProcess:
    """The toy operator (`support.toy`) for one namespace. ``address`` is one of 127.0.0.0/8, so that ports need not differ."""

    name: str
    address: str
    namespace: str
    kubeconfig: Path
    log: Path
    prune_seconds: float = 300.0
    log_level: str = "DEBUG"
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> "OperatorProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        env = os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "LOG_LEVEL": self.log_level,
            "POD_NAME": self.name,
            "TOY_HOST": self.address,
            "TOY_NAMESPACE": self.namespace,
            "TOY_PRUNE_SECONDS": str(self.prune_seconds),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.toy"], env=env, cwd=ROOT / "tests", stdout=log, stderr=log
            )

    def wait_ready(self) -> "OperatorProcess":
        ends = time.monotonic() + READY_SECONDS
        while self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, f"{self.name} ended:\n{self.tail()}"
            assert time.monotonic() < ends, f"{self.name} is not ready:\n{self.tail()}"
            time.sleep(0.1)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:8080{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, line: str) -> float:
        """The value of the line that begins like this; 0 where there is none."""
        found = [text for text in self.get("/metrics")[1].splitlines() if text.startswith(line)]
        return sum(float(text.rpartition(" ")[2]) for text in found)

    def leads(self) -> bool:
        return self.metric("tuningfork_leader") == 1

    def kill(self) -> None:
        """As a machine that loses power."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """As kubelet does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def tail(self) -> str:
        return self.log.read_text()[-4000:]
