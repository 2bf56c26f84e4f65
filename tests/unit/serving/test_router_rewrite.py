"""What the router changes in requests and answers, byte for byte, and what it leaves alone."""

import json
from typing import Any

import pytest

from tuningfork_serving.openai import ApiError
from tuningfork_serving.router.answer import EventStream, Renaming, Tokens
from tuningfork_serving.router.request import parse_call

RENAME = Renaming("v1-adapter", "support")


@pytest.mark.parametrize(
    ("sent", "upstream"),
    [
        pytest.param({"model": "m"}, {"model": "a"}, id="the model becomes the adapter"),
        pytest.param(
            {"model": "m", "user": "u", "logit_bias": {"5": 1}, "messages": [{"role": "user", "content": "é"}]},
            {"model": "a", "user": "u", "logit_bias": {"5": 1}, "messages": [{"role": "user", "content": "é"}]},
            id="everything else passes",
        ),
        pytest.param(
            {"model": "m", "stream": True},
            {"model": "a", "stream": True, "stream_options": {"include_usage": True}},
            id="a stream is asked for its usage",
        ),
        pytest.param(
            {"model": "m", "stream": True, "stream_options": {"x": 1}},
            {"model": "a", "stream": True, "stream_options": {"x": 1, "include_usage": True}},
            id="other stream options stay",
        ),
        pytest.param({"model": "m", "stream": False}, {"model": "a", "stream": False}, id="no stream, no options"),
        pytest.param(
            {"model": "m", "stream": True, "stream_options": 5},
            {"model": "a", "stream": True, "stream_options": 5},
            id="nonsense is the engine's to refuse",
        ),
    ],
)
def test_request_bodies(sent: dict[str, Any], upstream: dict[str, Any]) -> None:
    assert json.loads(parse_call("/v1/completions", json.dumps(sent).encode()).upstream_body("a")) == upstream


@pytest.mark.parametrize(
    ("raw", "message", "param"),
    [
        pytest.param(b"{", "the body is not JSON", None, id="not JSON"),
        pytest.param(b"[1]", "the body must be a JSON object", None, id="no object"),
        pytest.param(b"{}", "model must be given", "model", id="no model"),
        pytest.param(b'{"model": 5}', "model must be given", "model", id="a number as model"),
    ],
)
def test_requests_that_nobody_could_answer(raw: bytes, message: str, param: str | None) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse_call("/v1/completions", raw)
    assert caught.value.status == 400
    assert caught.value.body["error"]["param"] == param


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        pytest.param(b'{"id":"x","model":"v1-adapter"}', b'{"id":"x","model":"support"}', id="compact"),
        pytest.param(b'{"id": "x", "model": "v1-adapter"}', b'{"id": "x", "model": "support"}', id="spaced"),
        pytest.param(b'{"model":"other"}', b'{"model":"other"}', id="another name"),
        pytest.param(
            rb'{"content":"\"model\":\"v1-adapter\"","model":"v1-adapter"}',
            rb'{"content":"\"model\":\"v1-adapter\"","model":"support"}',
            id="a text that looks like the field",
        ),
    ],
)
def test_the_public_name_in_answers(answer: bytes, shown: bytes) -> None:
    assert RENAME(answer) == shown


EVENT = b'data: {"model":"v1-adapter","choices":[{"delta":{"content":"hi"}}]}\n\n'
SHOWN = b'data: {"model":"support","choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"model":"v1-adapter","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_events_are_shown_whole_however_the_bytes_arrive(size: int) -> None:
    stream, raw = EventStream(RENAME, wants_usage=False), EVENT + EVENT + USAGE + DONE
    shown = [event for at in range(0, len(raw), size) for event in stream.feed(raw[at : at + size])]
    assert shown == [SHOWN, SHOWN, DONE]
    assert (stream.tokens, stream.done, stream.error) == (Tokens(3, 2), True, None)


def test_a_client_that_asked_for_usage_gets_it() -> None:
    shown = list(EventStream(RENAME, wants_usage=True).feed(USAGE))
    assert shown == [USAGE.replace(b"v1-adapter", b"support")]


def test_usage_beside_a_last_choice_is_counted_and_shown() -> None:
    event = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":4}}\n\n'
    stream = EventStream(RENAME, wants_usage=False)
    assert (list(stream.feed(event)), stream.tokens) == ([event], Tokens(1, 4))


def test_carriage_returns_end_events_too() -> None:
    stream = EventStream(RENAME, wants_usage=False)
    assert list(stream.feed(EVENT.replace(b"\n", b"\r\n"))) == [SHOWN]


def test_an_error_in_the_stream_is_seen() -> None:
    stream = EventStream(RENAME, wants_usage=False)
    assert list(stream.feed(b'data: {"error":{"message":"boom"}}\n\n'))
    assert (stream.error, stream.done) == ('{"error":{"message":"boom"}}', False)
