"""Asking a daemon whether it is ready: one question, an answer within two seconds, and no exceptions."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from devcluster.console import ClusterError

ANSWER_SECONDS = 2.0
POLL_SECONDS = 0.2

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy for the internet, from the environment, knows nothing of this cluster."""


def http_ok(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def socket_accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def wait_until(check: Callable[[], bool], within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not check():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {within:.0f} s.")
        time.sleep(POLL_SECONDS)
