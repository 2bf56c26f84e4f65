"""Which provider serves: the first that is possible, and always the one that already runs.

1. a cluster that was asked for in TUNINGFORK_KUBECONFIG
2. kind, where a Docker engine answers
3. the local cluster, for root on Linux
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from devcluster import byo, kind
from devcluster.cluster import Provider
from devcluster.local.provider import LocalProvider


def select(docker_answers: Callable[[], bool] = kind.docker_answers) -> Provider:
    """The local one is also the last resort: where it is impossible its `up` says what to install."""
    if asked := os.environ.get(byo.VARIABLE):
        return byo.ByoProvider(Path(asked).expanduser().absolute())
    local = LocalProvider()
    if local.exists() and os.access(local.state, os.R_OK):  # not root's, for somebody who is not
        return local
    return kind.KindProvider() if docker_answers() else local
