"""A proxy between the operator and the API server that counts what passes and can break it.

Plain HTTP towards the operator, the kubeconfig's TLS and credentials towards the API server, watches streamed as they come. A write is
numbered after the API server has answered it and before the operator hears of it: that is the moment at which a crash is worst,
and `after_write` is called there. It runs in its own thread, so that tests may block.
"""

import asyncio
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from support.cluster import Cluster

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_UNCOUNTED = re.compile(r"/(leases|tokenreviews|events|selfsubjectaccessreviews)(/|$|\?)")
"""Writes that are no part of what the operator decides; their number depends on time."""

_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "host", "keep-alive"})


@dataclass(frozen=True)
class Call:
    """One request that passed."""

    method: str
    path: str
    """Without the query."""
    user_agent: str
    status: int = 0
    number: int = 0
    """Of a counted write, from 1; 0 for everything else."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status}"


@dataclass
class FaultProxy:
    """``fault`` answers a call instead of the API server when it returns a status; ``after_write`` sees each counted write."""

    cluster: Cluster
    fault: Callable[[Call], int | None] = lambda call: None
    after_write: Callable[[Call], None] = lambda call: None
    calls: list[Call] = field(default_factory=list)
    muted: Callable[[str], bool] = lambda path: False
    """Whether a watch of this path shows nothing at the moment; what it did not show, it never shows."""
    down: bool = False
    """Every new connection is dropped."""

    def __enter__(self) -> "FaultProxy":
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Transport] = set()
        self._numbered = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self._wait(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def writes(self) -> list[Call]:
        """The counted writes, in order."""
        return [call for call in self.calls if call.number]

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig that leads through the proxy."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def cut(self) -> None:
        """Ends every open connection, watches included, as a restarted load balancer does."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for transport in list(self._open):
            transport.abort()
        self._open.clear()

    def _wait(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=self.cluster.tls())
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self.cluster.headers(),
            auto_decompress=False,
            read_bufsize=8 << 20,  # a watch is read by lines, and an object may be a long one
        )
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _end(self) -> None:
        self._abort()
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._open.add(transport)
        if self.down:
            transport.abort()
            return web.Response()
        call = Call(request.method, request.path, request.headers.get("User-Agent", ""))
        if status := self.fault(call):
            self.calls.append(Call(call.method, call.path, call.user_agent, status))
            return _status(status)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method,
            self.cluster.server + request.path_qs,
            headers=headers,
            data=await request.read() or None,
            skip_auto_headers={"Content-Type"},
            timeout=timeout,
        ) as upstream:
            return await self._relay(request, call, upstream)

    async def _relay(self, request: web.Request, call: Call, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        kept = {key: value for key, value in upstream.headers.items() if key.lower() not in _HOP_BY_HOP}
        if "watch" in request.query:
            self.calls.append(Call(call.method, call.path, call.user_agent, upstream.status))
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            async for line in upstream.content:
                if not self.muted(call.path):
                    await response.write(line)
            return response
        body = await upstream.read()
        self._count(call, upstream.status)
        return web.Response(status=upstream.status, headers=kept, body=body)

    def _count(self, call: Call, status: int) -> None:
        counted = call.method in _WRITES and status < 300 and not _UNCOUNTED.search(call.path)
        self._numbered += counted
        seen = Call(call.method, call.path, call.user_agent, status, self._numbered if counted else 0)
        self.calls.append(seen)
        if counted:
            self.after_write(seen)


def _status(code: int) -> web.Response:
    reason = {409: "Conflict", 404: "NotFound", 403: "Forbidden", 429: "TooManyRequests"}.get(code, "InternalError")
    body = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": "fault",
        "reason": reason,
        "code": code,
    }
    return web.Response(status=code, text=json.dumps(body), content_type="application/json")
