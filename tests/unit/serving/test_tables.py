"""Tables arrive within moments of a change, from a file at the start and from the API server afterwards, and never get lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tuningfork_serving import tables
from tuningfork_serving.tables import Data, KubeApi, Source, follow

WITHIN = 2.0


class Api:
    """A stand-in for the API server's watch: sends the object, then every change, until told to hang up."""

    def __init__(self, data: Data | None) -> None:
        self.data, self.status = data, 200
        self.queries: list[dict[str, str]] = []
        self.tokens: list[str | None] = []
        self._watches: list[asyncio.Queue[Any]] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/ml/configmaps", self.watch)
        return app

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        self.tokens.append(request.headers.get("Authorization"))
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        changes: asyncio.Queue[Any] = asyncio.Queue()
        self._watches.append(changes)
        if self.data is not None:
            await self._send(response, "ADDED", self.data)
        while (change := await changes.get()) is not None:
            await self._send(response, *change)
        return response

    async def _send(self, response: web.StreamResponse, type_: str, data: Data) -> None:
        line = json.dumps({"type": type_, "object": {"data": data, "message": "too old"}}).encode() + b"\n"
        await response.write(line[:10])
        await response.write(line[10:])

    def change(self, type_: str, data: Data) -> None:
        self.data = data
        self._watches[-1].put_nowait((type_, data))

    def hang_up(self) -> None:
        self._watches[-1].put_nowait(None)


class Got:
    """What was accepted, and a way to wait for more."""

    def __init__(self) -> None:
        self.all: list[Data] = []
        self._more = asyncio.Event()

    def __call__(self, data: Data) -> None:
        self.all.append(data)
        self._more.set()

    async def until(self, count: int) -> list[Data]:
        async with asyncio.timeout(WITHIN):
            while len(self.all) < count:
                self._more.clear()
                await self._more.wait()
        return self.all


@asynccontextmanager
async def following(source: Source) -> AsyncIterator[Got]:
    got = Got()
    task = asyncio.create_task(follow(source, got))
    try:
        yield got
    finally:
        assert not task.done()
        task.cancel()


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[str]:
    async with TestServer(api.app()) as server:
        yield f"http://127.0.0.1:{server.port}"
        if api._watches:
            api.hang_up()


@pytest.fixture
def mount(tmp_path: Path) -> Callable[[Data], Path]:
    """Writes keys as the kubelet mounts them, with its own folders beside."""

    def write(data: Data) -> Path:
        (tmp_path / "..data").mkdir(exist_ok=True)
        for key, text in data.items():
            (tmp_path / key).write_text(text)
        return tmp_path

    return write


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "FILE_SECONDS", 0.02)
    monkeypatch.setattr(tables, "BACKOFF_SECONDS", (0.02, 0.05))


async def test_the_watch_brings_the_object_and_each_change_over_reconnections(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    api = Api({"routes.json": "1"})
    async with served(api) as url, following(Source("ml", "support-serving", None, KubeApi(url, token))) as got:
        await got.until(1)
        api.change("MODIFIED", {"routes.json": "2"})
        await got.until(2)
        token.write_text("rotated\n")
        api.hang_up()
        await got.until(3)
        api.change("MODIFIED", {"routes.json": "3"})
        assert await got.until(4) == [{"routes.json": n} for n in ("1", "2", "2", "3")]
        assert api.queries[0] == {
            "watch": "1",
            "fieldSelector": "metadata.name=support-serving",
            "timeoutSeconds": str(tables.WATCH_SECONDS),
        }
        assert api.tokens == ["Bearer first", "Bearer rotated"]


async def test_the_file_counts_until_the_api_server_has_spoken(mount: Callable[[Data], Path]) -> None:
    port = unused_port()
    source = Source("ml", "support-serving", mount({"routes.json": "old file"}), KubeApi(f"http://127.0.0.1:{port}"))
    async with following(source) as got:
        assert await got.until(1) == [{"routes.json": "old file"}]
        mount({"routes.json": "new file"})
        assert (await got.until(2))[-1] == {"routes.json": "new file"}
        api = Api({"routes.json": "api"})
        async with TestServer(api.app(), port=port):
            assert (await got.until(3))[-1] == {"routes.json": "api"}
            mount({"routes.json": "older than the api"})
            api.change("MODIFIED", {"routes.json": "api 2"})
            await got.until(4)
            api.hang_up()
        await asyncio.sleep(0.2)
        assert {"routes.json": "older than the api"} not in got.all


async def test_a_deleted_object_and_an_expired_watch_take_nothing_away() -> None:
    api = Api({"routes.json": "1"})
    async with served(api) as url, following(Source("ml", "support-serving", None, KubeApi(url))) as got:
        await got.until(1)
        api.change("DELETED", {"routes.json": "1"})
        api.change("ERROR", {"routes.json": "1"})
        assert await got.until(2) == [{"routes.json": "1"}] * 2
        assert len(api.queries) == 2


async def test_a_refused_watch_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    api = Api({"routes.json": "1"})
    api.status = 403
    async with served(api) as url, following(Source("ml", "support-serving", None, KubeApi(url))) as got:
        while len(api.queries) < 4:
            await asyncio.sleep(0.01)
            for watch in api._watches:
                watch.put_nowait(None)
        api.status = 200
        await got.until(1)
    said = [record.getMessage() for record in caplog.records if "cannot watch" in record.getMessage()]
    assert len(said) == 1
    assert "403" in said[0]


async def test_without_an_api_server_the_file_is_followed(mount: Callable[[Data], Path]) -> None:
    async with following(Source("ml", "support-serving", mount({"adapters.json": "a"}))) as got:
        await got.until(1)
        mount({"routes.json": "b"})
        assert (await got.until(2))[-1] == {"adapters.json": "a", "routes.json": "b"}
