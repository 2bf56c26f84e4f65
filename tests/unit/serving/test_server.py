"""SIGTERM: readiness goes red first, the socket stays open for a moment, and running requests end."""

import asyncio
import os
import signal
from collections.abc import Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from tuningfork_serving.server import serve


class Slow:
    """A server with a stream that goes on until it is told to end."""

    def __init__(self, grace: float) -> None:
        self.port, self.end, self.drained, self.cancelled = unused_port(), asyncio.Event(), False, False
        app = web.Application()
        app.router.add_get("/stream", self.stream)
        self.task = asyncio.create_task(
            serve(app, "127.0.0.1", self.port, on_drain=self.drain, linger=0.2, grace=grace)
        )

    def drain(self) -> None:
        self.drained = True

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            await response.write(b"begin,")
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        await response.write(b"end")
        return response

    async def open(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        while True:
            try:
                return await session.get(f"http://127.0.0.1:{self.port}/stream")
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_running_and_late_requests_end_before_the_server_does() -> None:
    slow = Slow(grace=5)
    async with aiohttp.ClientSession() as session:
        running = await slow.open(session)
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: slow.drained)
        late = await slow.open(session)
        await asyncio.sleep(0.3)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{slow.port}/stream")
        assert not slow.task.done()
        slow.end.set()
        assert [await running.text(), await late.text()] == ["begin,end"] * 2
        await asyncio.wait_for(slow.task, 5)


async def test_what_outlasts_the_grace_is_cut() -> None:
    slow = Slow(grace=0.4)
    async with aiohttp.ClientSession() as session:
        running = await slow.open(session)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(aiohttp.ClientError):
            await running.text()
        await asyncio.wait_for(slow.task, 5)
    assert slow.cancelled


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    slow = Slow(grace=1)
    async with aiohttp.ClientSession() as session:
        (await slow.open(session)).close()
        await eventually(lambda: slow.cancelled)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(slow.task, 5)
