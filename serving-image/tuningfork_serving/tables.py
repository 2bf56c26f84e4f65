"""Follows the ConfigMap with the serving tables, and keeps the last one when everything else is gone.

The mounted file is there before the first packet and needs no API server, but the kubelet refreshes it only about once a minute; a
watch takes milliseconds. So the file counts until the API server has answered once, and from then on its last word does: the
file can only be older. Plain HTTP instead of a client library: one GET that never ends is all that is needed.
"""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

logger = logging.getLogger("tuningfork.tables")
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_SECONDS = 60
"""A watch is renewed this often, so that a connection that died silently is noticed."""
FILE_SECONDS = 1.0
BACKOFF_SECONDS = (0.2, 5.0)
"""First and longest pause after a failed watch."""

Data = dict[str, str]
"""A ConfigMap's data."""


@dataclass(frozen=True)
class KubeApi:
    """Where the API server is and who we are."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def in_cluster(cls) -> "KubeApi | None":
        """The pod's own access; None outside a cluster."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (ACCOUNT / "token").exists():
            return None
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", ACCOUNT / "token", ACCOUNT / "ca.crt")

    def headers(self) -> dict[str, str]:
        """Read anew each time: the kubelet rotates the token."""
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"} if self.token_file else {}

    def tls(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else True


@dataclass(frozen=True)
class Source:
    """One ConfigMap: its name in the cluster, and where it is mounted."""

    namespace: str
    name: str
    directory: Path | None = None
    api: KubeApi | None = None

    def read_file(self) -> Data:
        """The mounted keys; empty when there is nothing."""
        if self.directory is None or not self.directory.is_dir():
            return {}
        return {path.name: path.read_text() for path in self.directory.iterdir() if path.suffix == ".json"}


async def follow(source: Source, accept: Callable[[Data], None]) -> None:
    """Calls ``accept`` with the ConfigMap's data, at once and after each change, for ever.

    ``accept`` logs what it cannot use; a bad table never ends the following.
    """
    spoken = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_follow_file(source, accept, spoken))
        if source.api:
            tasks.create_task(_follow_api(source, source.api, accept, spoken))


async def _follow_file(source: Source, accept: Callable[[Data], None], spoken: asyncio.Event) -> None:
    last: Data = {}
    while not spoken.is_set():
        with suppress(OSError):  # the kubelet swaps the folder under us; the next look sees the new one
            data = source.read_file()
            if data and data != last:
                last = data
                accept(data)
        with suppress(TimeoutError):
            await asyncio.wait_for(spoken.wait(), FILE_SECONDS)


async def _follow_api(source: Source, api: KubeApi, accept: Callable[[Data], None], spoken: asyncio.Event) -> None:
    pause, trouble = BACKOFF_SECONDS[0], ""
    async with aiohttp.ClientSession(trust_env=False) as session:
        while True:
            try:
                async for data in _watch(session, source, api):
                    if trouble:
                        logger.info("watching ConfigMap %s/%s again", source.namespace, source.name)
                    pause, trouble = BACKOFF_SECONDS[0], ""
                    spoken.set()
                    accept(data)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                cause = f"{type(error).__name__}: {error}"
                if cause != trouble:  # once a cause, not once a retry
                    logger.warning("cannot watch ConfigMap %s/%s: %s", source.namespace, source.name, cause)
                trouble = cause
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACKOFF_SECONDS[1])


async def _watch(session: aiohttp.ClientSession, source: Source, api: KubeApi) -> AsyncIterator[Data]:
    """One watch request. Without a resourceVersion it begins with the object as it is, so that no list is needed."""
    url = f"{api.url}/api/v1/namespaces/{source.namespace}/configmaps"
    query = {"watch": "1", "fieldSelector": f"metadata.name={source.name}", "timeoutSeconds": str(WATCH_SECONDS)}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_SECONDS + 10)
    async with session.get(url, params=query, headers=api.headers(), ssl=api.tls(), timeout=timeout) as response:
        response.raise_for_status()
        buffer = b""
        async for chunk in response.content.iter_any():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                if line.strip() and (data := _data(json.loads(line))) is not None:
                    yield data


def _data(event: dict[str, Any]) -> Data | None:
    """The data of an event. A deleted ConfigMap changes nothing: what served goes on serving."""
    if event["type"] == "ERROR":
        raise ValueError(f"the watch ended: {event['object'].get('message')}")
    if event["type"] not in ("ADDED", "MODIFIED"):
        return None
    data: Data = event["object"].get("data") or {}
    return data
