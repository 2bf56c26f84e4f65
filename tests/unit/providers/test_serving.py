"""Pods say what they hold; silence is None, and no pod keeps the others waiting for ever."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tuningfork.api.routes import AdapterState, LoaderState, RouterState
from tuningfork.providers import serving

LOADED = LoaderState(engine_up=True, adapters={"v1-abc": AdapterState(state="Loaded")})


async def loader(body: str, status: int = 200, delay: float = 0.0) -> TestServer:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.Response(text=body, status=status)

    app = web.Application()
    app.router.add_get("/adapters", answer)
    app.router.add_get("/-/routes", answer)
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize(
    ("body", "status", "delay", "expected"),
    [
        pytest.param(LOADED.model_dump_json(by_alias=True), 200, 0.0, LOADED, id="what it holds"),
        pytest.param("{}", 503, 0.0, None, id="an error"),
        pytest.param("<html>", 200, 0.0, None, id="something else"),
        pytest.param(LOADED.model_dump_json(by_alias=True), 200, 3.0, None, id="too slow"),
    ],
)
async def test_a_loader(
    monkeypatch: pytest.MonkeyPatch, body: str, status: int, delay: float, expected: LoaderState | None
) -> None:
    monkeypatch.setattr(serving, "POD_SECONDS", 0.3)
    server = await loader(body, status, delay)
    monkeypatch.setattr(serving, "LOADER_PORT", server.port)
    try:
        assert await serving.read_loaders({"uid-1": "127.0.0.1"}) == {"uid-1": expected}
    finally:
        await server.close()


async def test_a_pod_that_is_gone_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await loader('{"generation": 7, "effective": {"v1": 100}}')
    monkeypatch.setattr(serving, "ROUTER_PORT", server.port)
    try:
        found = await serving.read_routers({"there": "127.0.0.1", "gone": "127.0.0.2"})
    finally:
        await server.close()
    assert found == {"there": RouterState(generation=7, effective={"v1": 100}), "gone": None}
