"""One request from the client to an engine and back.

What is retried: a connection that failed before the first byte, a 503, and a 404 for an adapter that we declared, each on another pod.
What is not: any other answer (it was paid for), and anything after the first byte (the client has it). When no pod answers for
a candidate or a pin, its user gets stable instead; the failure counts on the lane that failed, the answer on the one that gave it.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import aiohttp
from aiohttp import web

from tuningfork_serving.openai import ApiError, error_body
from tuningfork_serving.router.answer import EventStream, Renaming, read_usage
from tuningfork_serving.router.backends import Backends, Pod
from tuningfork_serving.router.feedback import Ids, Origin
from tuningfork_serving.router.metrics import Outcome, RouterMetrics
from tuningfork_serving.router.outcome import ClientGone, Failed, Record, outcome_of_status
from tuningfork_serving.router.request import Call
from tuningfork_serving.router.routes import Lane, Routes

ATTEMPTS = 3
CONNECT_SECONDS = 2.0
VERSION_HEADER = "X-TuningFork-Version"
"""On every answer: the ModelVersion that gave it."""
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Unanswered(Failed):
    """No pod answered, and the client has not got a byte yet."""

    def __init__(self, cause: str) -> None:
        super().__init__(Outcome.UPSTREAM_ERROR, cause)


class Proxy:
    """Sends calls to engines and answers back."""

    def __init__(
        self, session: aiohttp.ClientSession, backends: Backends, metrics: RouterMetrics, ids: Ids, timeout: float
    ) -> None:
        self._session, self._backends, self._metrics, self._ids = session, backends, metrics, ids
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)

    async def forward(self, request: web.Request, call: Call, routes: Routes, lane: Lane) -> web.StreamResponse:
        """The lane's answer, or stable's where the lane has none."""
        try:
            return await self._answer(request, call, routes, lane)
        except Unanswered as error:
            fallback = routes.fallback(lane)
            if fallback is None:
                raise _unavailable(call) from error
        try:
            return await self._answer(request, call, routes, fallback)
        except Unanswered as error:
            raise _unavailable(call) from error

    async def _answer(self, request: web.Request, call: Call, routes: Routes, lane: Lane) -> web.StreamResponse:
        labels = self._metrics.labels(lane.track, lane.slice, lane.target.version)
        rename = Renaming(lane.target.adapter, routes.table.model)
        told = {VERSION_HEADER: lane.target.version}
        id_ = self._ids.make(Origin(lane.target.version, str(lane.track), str(lane.slice)))
        try:
            with Record(self._metrics, labels) as record:
                async with self._open(call, lane.target.adapter, id_, record) as upstream:
                    if call.stream and upstream.status == 200:
                        return await _relay_stream(request, call, upstream, rename, record, told)
                    return await _relay_whole(upstream, rename, record, told)
        except Unanswered:
            raise
        except ClientGone:
            return web.Response(status=499)  # nobody reads it
        except Failed as error:
            _raise_failure(error)

    @asynccontextmanager
    async def _open(self, call: Call, adapter: str, id_: str, record: Record) -> AsyncIterator[aiohttp.ClientResponse]:
        """The first pod's answer that counts."""
        body, tried, cause = call.upstream_body(adapter), list[Pod](), f"no engine holds {adapter}"
        for _ in range(ATTEMPTS):
            pod = self._next_pod(adapter, tried)
            if pod is None:
                break
            if tried:
                record.retried()
            tried.append(pod)
            pod.outstanding += 1
            try:
                with record.outside():
                    response = await self._ask(pod, call.path, body, id_, adapter)
                async with response:
                    yield response
                return
            except _Elsewhere as reason:
                cause = f"{pod.address.host}:{pod.address.engine_port} {reason}"
            finally:
                pod.outstanding -= 1
        raise Unanswered(cause)

    def _next_pod(self, adapter: str, tried: list[Pod]) -> Pod | None:
        """Another pod; a lone one gets a second chance after a broken connection, which may just have been idle for too long."""
        again = len(tried) == 1 and tried[0].suspect
        return self._backends.choose(adapter, tried) or (self._backends.choose(adapter) if again else None)

    async def _ask(self, pod: Pod, path: str, body: bytes, id_: str, adapter: str) -> aiohttp.ClientResponse:
        """The pod's answer; raises _Elsewhere when another pod shall be asked."""
        headers = {"Content-Type": "application/json", "X-Request-Id": id_}
        try:
            response = await self._session.post(pod.url(path), data=body, headers=headers, timeout=self._timeout)
        except (aiohttp.ClientError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
                raise Failed(Outcome.TIMEOUT, f"no answer in {self._timeout.total:g} s") from error
            pod.suspect = True
            raise _Elsewhere(f"cannot be reached: {type(error).__name__}") from error
        if response.status not in (404, 503):
            return response
        async with response:
            if response.status == 404:
                pod.missing.add(adapter)
            raise _Elsewhere(f"answered {response.status} for {adapter}")


class _Elsewhere(Exception):  # noqa: N818 - a direction
    """This pod cannot answer; another may."""


async def _relay_whole(
    upstream: aiohttp.ClientResponse, rename: Renaming, record: Record, told: dict[str, str]
) -> web.Response:
    try:
        with record.outside():
            body = await upstream.read()
        parsed = await upstream.json(content_type=None) if upstream.status == 200 else None
    except TimeoutError as error:
        raise Failed(Outcome.TIMEOUT, "the answer did not end in time") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Failed(Outcome.UPSTREAM_ERROR, f"the answer broke off: {error}") from error
    record.outcome = outcome_of_status(upstream.status)
    record.tokens = read_usage(parsed)
    return web.Response(body=rename(body), status=upstream.status, content_type=upstream.content_type, headers=told)


async def _relay_stream(
    request: web.Request,
    call: Call,
    upstream: aiohttp.ClientResponse,
    rename: Renaming,
    record: Record,
    told: dict[str, str],
) -> web.StreamResponse:
    events = EventStream(rename, call.wants_usage)
    chunk = await _read(
        upstream, record, Outcome.UPSTREAM_ERROR
    )  # before the status line goes out: a stream that never begins is a 502
    if not chunk:
        raise Failed(Outcome.UPSTREAM_ERROR, "the stream ended before its first event")
    response = web.StreamResponse(headers=STREAM_HEADERS | told)
    try:
        await _begin(request, response, record)
        while chunk:
            if shown := b"".join(events.feed(chunk)):
                await _write(response, shown, record)
                record.saw_event()
            chunk = await _read(upstream, record, Outcome.STREAM_ERROR)
        if events.error or not events.done:
            raise Failed(Outcome.STREAM_ERROR, events.error or "the stream ended without [DONE]")
    except Failed as error:
        record.fail(error)
        if not events.error:
            await _write(response, _error_event(error), record)
    finally:
        record.tokens = events.tokens
    return response


async def _begin(request: web.Request, response: web.StreamResponse, record: Record) -> None:
    try:
        with record.outside():
            await response.prepare(request)
    except ConnectionError as error:
        raise ClientGone from error


async def _read(upstream: aiohttp.ClientResponse, record: Record, broken: Outcome) -> bytes:
    try:
        with record.outside():
            return await upstream.content.readany()
    except TimeoutError as error:
        raise Failed(Outcome.TIMEOUT, "the stream did not end in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Failed(broken, f"the stream broke off: {error}") from error


async def _write(response: web.StreamResponse, data: bytes, record: Record) -> None:
    try:
        with record.outside():
            await response.write(data)
    except ConnectionError as error:
        raise ClientGone from error


def _error_event(error: Failed) -> bytes:
    body = error_body("the answer broke off; send the request again", "server_error", code=str(error.outcome))
    return f"data: {json.dumps(body)}\n\n".encode()


def _unavailable(call: Call) -> ApiError:
    message = f"no engine can answer for `{call.model}` at the moment; try again in a few seconds"
    return ApiError(503, message, "server_error", code="model_unavailable")


def _raise_failure(error: Failed) -> NoReturn:
    if error.outcome is Outcome.TIMEOUT:
        raise ApiError(504, f"the engine took too long: {error}", "server_error", code="timeout") from error
    raise ApiError(502, "the engine's answer broke off; send the request again", "server_error", code="upstream_error")
