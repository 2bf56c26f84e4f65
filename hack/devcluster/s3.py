"""The S3 server: versitygw over a folder, with real checksums, multipart uploads and If-None-Match.

A process of the host under every provider, because its data should be easy to look at: a bucket is a folder.
"""

from __future__ import annotations

from pathlib import Path

from devcluster import gobuild, probes, settings, tools
from devcluster.daemons import Daemon

NAME = "s3"


def daemon(state: Path, address: str) -> Daemon:
    data = state / "s3"
    data.mkdir(parents=True, exist_ok=True)
    listen = f"{address}:{settings.S3_PORT}"
    return Daemon(
        name=NAME,
        argv=[
            gobuild.binary(tools.VERSITYGW),
            f"--port={listen}",
            f"--region={settings.S3_REGION}",
            "--health=/health",
            "--quiet",
            "posix",
            data,
        ],
        env={"ROOT_ACCESS_KEY": settings.S3_ACCESS_KEY, "ROOT_SECRET_KEY": settings.S3_SECRET_KEY},
        ready=lambda: probes.http_ok(f"http://{listen}/health"),
    )
