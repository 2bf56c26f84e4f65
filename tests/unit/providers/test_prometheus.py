"""Prometheus' answers as they come over the wire; each way to get none has its error."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tuningfork.api.settings import PrometheusSettings
from tuningfork.delivery.queries import Sample
from tuningfork.providers import errors
from tuningfork.providers.prometheus import Prometheus, parse_answer

AT = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[Prometheus]]


def vector(*results: tuple[dict[str, str], str]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [0, value]} for labels, value in results]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(vector(({"slice": "candidate"}, "1.5")), [Sample({"slice": "candidate"}, 1.5)], id="a series"),
        pytest.param(vector(), [], id="nothing"),
        pytest.param(vector(({}, "NaN"), ({}, "+Inf")), [], id="not a finite number is no data"),
        pytest.param(
            {"status": "success", "data": {"resultType": "scalar", "result": [0, "3"]}}, [Sample({}, 3.0)], id="scalar"
        ),
        pytest.param(vector(({}, "1")) | {"warnings": ["a store is away"]}, [Sample({}, 1.0)], id="with a warning"),
    ],
)
def test_answer(answer: dict[str, Any], expected: list[Sample]) -> None:
    assert parse_answer(200, json.dumps(answer)) == expected


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        pytest.param(
            400, '{"status":"error","errorType":"bad_data","error":"unexpected end of input"}', errors.InvalidError,
            "Prometheus refuses the query: 400 bad_data: unexpected end of input", id="a query that is none",
        ),
        pytest.param(
            503, '{"status":"error","errorType":"timeout","error":"query timed out"}', errors.TransientError,
            "503 timeout: query timed out", id="too slow",
        ),
        pytest.param(502, "<html>Bad Gateway</html>", errors.TransientError, "answers 502 and no JSON", id="a proxy"),
        pytest.param(
            200, '{"status":"success","data":{"resultType":"matrix","result":[]}}', errors.InvalidError,
            "gives a matrix", id="a range vector",
        ),
    ],
)  # fmt: skip
def test_no_answer(status: int, body: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        parse_answer(status, body)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Prometheus:
        app = web.Application()
        app.router.add_post("/prometheus/api/v1/query", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        url = str(server.make_url("/prometheus/"))
        return Prometheus(PrometheusSettings(url=url, timeout_seconds=0.3))

    yield start
    for server in servers:
        await server.close()


async def test_the_query_carries_its_own_moment_and_limit(serve: Serve) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append({key: str(value) for key, value in (await request.post()).items()})
        return web.json_response(vector(({}, "1")))

    assert await (await serve(answer)).query("up", AT) == [Sample({}, 1.0)]
    assert seen == [{"query": "up", "time": "1769860800.250", "timeout": "0.3s"}]


async def test_a_hung_prometheus_is_a_transient_error_in_time(serve: Serve) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    with pytest.raises(errors.TransientError, match=r"no answer within 0\.3 s"):
        await (await serve(hang)).query("up", AT)


async def test_a_closed_port_is_a_transient_error() -> None:
    with pytest.raises(errors.TransientError, match="Prometheus does not answer: "):
        await Prometheus(PrometheusSettings(url="http://127.0.0.1:9")).query("up", AT)


async def test_without_an_address_the_error_says_what_to_set() -> None:
    with pytest.raises(errors.PermanentError, match=r"set prometheus\.url in the chart's values"):
        await Prometheus(PrometheusSettings()).query("up", AT)
