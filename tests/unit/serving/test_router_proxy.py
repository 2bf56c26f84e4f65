"""Requests through a whole router to stand-in engines that count: status, exact body, upstream requests and series of each ending."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, unused_port

from tuningfork.api.routes import RouteTable
from tuningfork_serving.router.app import Router
from tuningfork_serving.router.backends import Address
from tuningfork_serving.tables import Source

Build = Callable[..., RouteTable]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
URL = "/v1/chat/completions"
ASK = {"model": "support", "user": "u", "messages": [{"role": "user", "content": "hi"}]}


class Engine:
    """A pod: an engine that answers as told, and a loader that says what it holds."""

    def __init__(self, *adapters: str, status: int = 200, handler: Handler | None = None) -> None:
        self.adapters, self.status, self.handler = set(adapters), status, handler
        self.seen: list[dict[str, Any]] = []
        self.ids: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(URL, self.answer)
        app.router.add_get("/adapters", self.loader)
        return app

    async def loader(self, _: web.Request) -> web.Response:
        return web.json_response({"engineUp": True, "adapters": {name: {"state": "Loaded"} for name in self.adapters}})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.ids.append(request.headers["X-Request-Id"])
        if self.handler:
            return await self.handler(request)
        answer = {"id": f"chatcmpl-{self.ids[-1]}", "model": body["model"], "choices": [{"text": "hello"}]}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return web.json_response(
            {**answer, "usage": usage} if self.status < 400 else {"error": "x"}, status=self.status
        )


@asynccontextmanager
async def routed(table: RouteTable, *engines: Engine, dead: int = 0, **options: Any) -> AsyncIterator["Rig"]:
    """A router with this table before these engines; ``dead`` pods are known to hold everything and refuse connections."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(TestServer(engine.app())) for engine in engines]
        addresses = [Address("127.0.0.1", server.port or 0, server.port or 0) for server in servers]
        gone = [Address("127.0.0.1", unused_port(), 1) for _ in range(dead)]
        router = Router(Source("ml", "support-serving"), "support", engines=[*addresses, *gone], **options)
        router.accept({"routes.json": json.dumps(table.dump())})
        server = TestServer(router.app(), handler_cancellation=True)
        client = await stack.enter_async_context(TestClient(server))
        for pod in router.backends.pods:
            if pod.address in gone:
                pod.adapters, pod.answered = frozenset(a for engine in engines for a in engine.adapters), 1e18
        while not all(
            pod.adapters or not engine.adapters for pod, engine in zip(router.backends.pods, engines, strict=False)
        ):
            await asyncio.sleep(0.01)
        for pod in router.backends.pods:
            pod.suspect = False
        yield Rig(router, client)


class Rig:
    """What a test reads."""

    def __init__(self, router: Router, client: TestClient[web.Request, web.Application]) -> None:
        self.router, self.client = router, client

    async def ask(self, **fields: Any) -> tuple[int, Any]:
        async with self.client.post(URL, json={**ASK, **fields}) as response:
            return response.status, await response.json()

    def value(self, name: str, **labels: str) -> float:
        place = {"namespace": "ml", "rollout": "support"}
        value = self.router.metrics.registry.get_sample_value(f"tuningfork_router_{name}", {**place, **labels})
        assert value is not None, f"no series {name} {labels}"
        return value

    def ended(self) -> Counter[str]:
        """Requests by "slice version outcome"."""
        counted: Counter[str] = Counter()
        for metric in self.router.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == "tuningfork_router_requests_total" and sample.value:
                    labels = sample.labels
                    counted[f"{labels['slice']} {labels['model_version']} {labels['outcome']}"] = int(sample.value)
        return counted


STABLE = {"track": "production", "slice": "stable", "model_version": "v1"}


@pytest.fixture
def canary(table: Build, lane_target: Callable[..., dict[str, Any]]) -> RouteTable:
    """Everybody is on the candidate v2."""
    return table(
        candidate=lane_target("v2", track="canary", weight=100, salt="s"), testers={"canary": lane_target("v2")}
    )


async def test_a_request_goes_to_the_version_s_adapter_and_comes_back_under_the_public_name(table: Build) -> None:
    engine = Engine("v1-adapter")
    async with routed(table(), engine) as rig:
        status, body = await rig.ask(temperature=0)
        assert engine.seen == [{**ASK, "model": "v1-adapter", "temperature": 0}]
        assert (status, body["model"], body["id"]) == (200, "support", f"chatcmpl-{engine.ids[0]}")
        assert rig.ended() == {"stable v1 ok": 1}
        assert rig.value("tokens_total", **STABLE, direction="input") == 5
        assert rig.value("tokens_total", **STABLE, direction="output") == 2
        assert rig.value("request_duration_seconds_count", **STABLE) == 1
        assert rig.value("overhead_seconds_sum", **STABLE) < rig.value("request_duration_seconds_sum", **STABLE)


async def test_the_answer_says_in_a_header_which_version_gave_it(canary: RouteTable) -> None:
    async with routed(canary, Engine("v1-adapter", "v2-adapter")) as rig:
        for stream in (False, True):
            async with rig.client.post(URL, json={**ASK, "stream": stream}) as response:
                assert (response.status, response.headers["X-TuningFork-Version"]) == (200, "v2")


async def test_an_unknown_model_reaches_no_engine(table: Build) -> None:
    engine = Engine("v1-adapter")
    async with routed(table(), engine) as rig:
        status, body = await rig.ask(model="gpt-4")
        assert (status, body["error"]["code"], engine.seen) == (404, "model_not_found", [])
        assert rig.ended() == {"  client_error": 1}


async def test_the_sticky_header_counts_before_the_body_s_user(
    table: Build, lane_target: Callable[..., dict[str, Any]]
) -> None:
    engine = Engine("v1-adapter", "v2-adapter")
    half = table(candidate=lane_target("v2", track="canary", weight=50, salt="s"))
    async with routed(half, engine) as rig:
        for user in [f"user-{n}" for n in range(20)]:
            async with rig.client.get("/-/explain", params={"user": user}) as told:
                version = (await told.json())["version"]
            async with rig.client.post(URL, json=ASK, headers={"X-User-Id": user}) as response:
                assert response.status == 200
            assert engine.seen[-1]["model"] == f"{version}-adapter"
        assert {seen["model"] for seen in engine.seen} == {"v1-adapter", "v2-adapter"}


@pytest.mark.parametrize(
    ("engines", "dead", "requests", "retries"),
    [
        pytest.param([Engine("v1-adapter", status=503)], 0, 1, 1, id="a busy pod"),
        pytest.param([Engine("v1-adapter", status=404)], 0, 1, 1, id="a pod that lost the adapter"),
        pytest.param([], 1, 0, 1, id="a pod that refuses connections"),
        pytest.param([Engine("other-adapter")], 0, 0, 0, id="a pod without the adapter is not asked"),
    ],
)
async def test_another_pod_answers_instead_of(
    table: Build, engines: list[Engine], dead: int, requests: int, retries: int
) -> None:
    good = Engine("v1-adapter")
    bad = [Engine(*engine.adapters, status=engine.status) for engine in engines]
    async with routed(table(), *bad, good, dead=dead) as rig:
        for pod in rig.router.backends.pods:  # the good one is tried last
            pod.outstanding = (
                5 if pod.address.engine_port == rig.router.backends.pods[len(bad)].address.engine_port else 0
            )
        status, _ = await rig.ask()
        assert (status, len(good.seen), sum(len(each.seen) for each in bad)) == (200, 1, requests)
        assert rig.ended() == {"stable v1 ok": 1}
        assert rig.value("retries_total", **STABLE) == retries


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, "client_error"), (422, "client_error"), (429, "rejected"), (500, "upstream_error"), (401, "upstream_error")],
)
async def test_an_answer_that_was_given_is_not_asked_for_again(table: Build, status: int, outcome: str) -> None:
    engines = [Engine("v1-adapter", status=status), Engine("v1-adapter", status=status)]
    async with routed(table(), *engines) as rig:
        assert await rig.ask() == (status, {"error": "x"})
        assert sum(len(engine.seen) for engine in engines) == 1
        assert rig.ended() == {f"stable v1 {outcome}": 1}


async def test_when_no_pod_has_the_stable_adapter_the_client_is_told_and_nobody_else_answers(table: Build) -> None:
    engine = Engine("v2-adapter")
    async with routed(table(), engine) as rig:
        status, body = await rig.ask()
        assert (status, engine.seen) == (503, [])
        assert body["error"] == {
            "message": "no engine can answer for `support` at the moment; try again in a few seconds",
            "type": "server_error",
            "param": None,
            "code": "model_unavailable",
        }
        assert rig.ended() == {"stable v1 upstream_error": 1}


async def test_a_candidate_on_no_pod_costs_its_users_nothing_and_is_counted_against_it(canary: RouteTable) -> None:
    engine = Engine("v1-adapter")
    async with routed(canary, engine) as rig:
        status, body = await rig.ask()
        assert (status, body["model"], engine.seen[0]["model"]) == (200, "support", "v1-adapter")
        assert rig.ended() == {"candidate v2 upstream_error": 1, "stable v1 ok": 1}


async def test_a_tester_gets_that_version_or_nothing(canary: RouteTable) -> None:
    engine = Engine("v1-adapter")
    async with routed(canary, engine) as rig:
        status, _ = await rig.ask(model="support@canary")
        assert (status, engine.seen) == (503, [])
        assert rig.ended() == {"tester v2 upstream_error": 1}


async def test_the_pod_with_the_fewest_requests_is_asked(table: Build) -> None:
    go = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await go.wait()
        return web.json_response({})

    engines = [Engine("v1-adapter", handler=wait) for _ in range(3)]
    async with routed(table(), *engines) as rig:
        asks = [asyncio.create_task(rig.ask()) for _ in range(6)]
        while sum(len(engine.seen) for engine in engines) < 6:
            await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(*asks)
        assert [len(engine.seen) for engine in engines] == [2, 2, 2]
        assert [pod.outstanding for pod in rig.router.backends.pods] == [0, 0, 0]


def streaming(*events: str, then: str = "end", pause: asyncio.Event | None = None) -> Handler:
    """A stream of events that ends, breaks the connection, or waits for ever."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        if then == "break" and request.transport:
            request.transport.abort()
        if then == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                if pause:
                    pause.set()
        return response

    return handler


HELLO = '{"model":"v1-adapter","choices":[{"delta":{"content":"hello"}}]}'
USAGE = '{"model":"v1-adapter","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
SHOWN = b'data: {"model":"support","choices":[{"delta":{"content":"hello"}}]}\n\n'
BROKEN = {"message": "the answer broke off; send the request again", "type": "server_error", "param": None}


def error_event(code: str) -> bytes:
    return f"data: {json.dumps({'error': {**BROKEN, 'code': code}})}\n\n".encode()


@pytest.mark.parametrize(
    ("handler", "shown", "outcome"),
    [
        pytest.param(streaming(HELLO, HELLO, USAGE, "[DONE]"), SHOWN * 2 + b"data: [DONE]\n\n", "ok", id="a whole one"),
        pytest.param(streaming(HELLO), SHOWN + error_event("stream_error"), "stream_error", id="one without [DONE]"),
        pytest.param(
            streaming(HELLO, then="break"),
            SHOWN + error_event("stream_error"),
            "stream_error",
            id="one that breaks off",
        ),
        pytest.param(
            streaming(HELLO, '{"error":{"message":"boom"}}', "[DONE]"),
            SHOWN + b'data: {"error":{"message":"boom"}}\n\ndata: [DONE]\n\n',
            "stream_error",
            id="one with an error in it",
        ),
        pytest.param(
            streaming(HELLO, then="hang"), SHOWN + error_event("timeout"), "timeout", id="one that never ends"
        ),
    ],
)
async def test_a_stream_counts_by_its_end(table: Build, handler: Handler, shown: bytes, outcome: str) -> None:
    engine = Engine("v1-adapter", handler=handler)
    async with routed(table(), engine, timeout=0.5) as rig:
        async with rig.client.post(URL, json={**ASK, "stream": True}) as response:
            assert (response.status, await response.read()) == (200, shown)
        assert engine.seen[0]["stream_options"] == {"include_usage": True}
        assert rig.ended() == {f"stable v1 {outcome}": 1}
        assert rig.value("time_to_first_token_seconds_count", **STABLE) == 1
        counted = 2 if outcome == "ok" else 0
        assert rig.value("tokens_total", **STABLE, direction="output") == counted
        assert rig.value("time_per_output_token_seconds_count", **STABLE) == counted / 2


async def test_a_stream_that_never_begins_is_an_honest_502(table: Build) -> None:
    async with routed(table(), Engine("v1-adapter", handler=streaming(then="break"))) as rig:
        status, body = await rig.ask(stream=True)
        assert (status, body["error"]["code"]) == (502, "upstream_error")
        assert rig.ended() == {"stable v1 upstream_error": 1}


async def test_an_answer_that_takes_too_long_is_a_timeout(table: Build) -> None:
    async def sleep(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    engine = Engine("v1-adapter", handler=sleep)
    async with routed(table(), engine, timeout=0.2) as rig:
        status, body = await rig.ask()
        assert (status, body["error"]["code"], len(engine.seen)) == (504, "timeout", 1)
        assert rig.ended() == {"stable v1 timeout": 1}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_no_failure_and_stops_the_engine(table: Build, stream: bool) -> None:
    stopped = asyncio.Event()
    engine = Engine("v1-adapter", handler=streaming(HELLO, then="hang", pause=stopped))
    async with routed(table(), engine) as rig:
        with pytest.raises(TimeoutError):
            async with rig.client.post(
                URL, json={**ASK, "stream": stream}, timeout=aiohttp.ClientTimeout(total=0.3)
            ) as response:
                await response.read()
        while not rig.ended():
            await asyncio.sleep(0.01)
        assert rig.ended() == {"stable v1 client_abort": 1}
        assert [pod.outstanding for pod in rig.router.backends.pods] == [0]


async def test_a_body_over_the_limit_is_refused(table: Build) -> None:
    engine = Engine("v1-adapter")
    async with routed(table(), engine) as rig:
        async with rig.client.post(URL, data=b" " * (16 * 1024**2 + 1)) as response:
            body = await response.json()
        assert (response.status, body["error"]["message"]) == (413, "the body is larger than 16 MiB")
        assert engine.seen == []


async def test_a_rating_counts_for_the_version_that_answered(canary: RouteTable) -> None:
    async with routed(canary, Engine("v1-adapter", "v2-adapter")) as rig:
        _, body = await rig.ask()
        lane = {"track": "canary", "slice": "candidate", "model_version": "v2"}
        assert rig.value("feedback_total", **lane, rating="down") == 0
        for counted in (True, False):
            async with rig.client.post("/v1/feedback", json={"id": body["id"], "rating": "down"}) as response:
                assert await response.json() == {"id": body["id"], "rating": "down", "counted": counted}
        assert rig.value("feedback_total", **lane, rating="down") == 1
        async with rig.client.post("/v1/feedback", json={"id": "chatcmpl-made-up", "rating": "down"}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (400, "invalid_feedback")


async def test_models_shows_the_public_name_only(canary: RouteTable) -> None:
    async with routed(canary) as rig, rig.client.get("/v1/models") as response:
        assert [card["id"] for card in (await response.json())["data"]] == ["support"]


async def test_ready_needs_a_stable_version_and_an_engine_and_ends_with_draining(table: Build) -> None:
    async def ready(rig: Rig) -> int:
        async with rig.client.get("/readyz") as response:
            return response.status

    async with routed(table(stable=None), Engine("v1-adapter")) as rig:
        assert await ready(rig) == 503
        rig.router.accept({"routes.json": json.dumps(table(generation=2).dump())})
        assert await ready(rig) == 200
        rig.router.drain()
        assert await ready(rig) == 503
        assert (await rig.ask())[0] == 200, "running connections are still served"
    async with routed(table()) as rig:
        assert await ready(rig) == 503


@pytest.mark.parametrize("lease", ["soon", "2026-01-31T12:00:00"])
async def test_a_table_that_cannot_be_used_changes_nothing(
    table: Build, lane_target: Callable[..., dict[str, Any]], lease: str
) -> None:
    bad = table(generation=5, candidate=lane_target("v2", track="canary", weight=5, salt="s", valid_until=lease))
    async with routed(table(generation=4), Engine("v1-adapter")) as rig:
        for text in (None, "{", '{"generation": 5}', json.dumps(bad.dump())):
            rig.router.accept({} if text is None else {"routes.json": text})
        async with rig.client.get("/-/routes") as response:
            assert await response.json() == {"generation": 4, "effective": {"v1": 100}}
        assert rig.value("route_generation") == 4
