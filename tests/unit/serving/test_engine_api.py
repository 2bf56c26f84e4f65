"""The engine over HTTP: OpenAI's API and vLLM's runtime LoRA API, to the letter of what clients, loader and router rely on."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tuningfork_serving.engine.app import Engine
from tuningfork_serving.engine.model import LoraModel

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 4}
Client = TestClient[web.Request, web.Application]


@pytest.fixture
def engine(base_dir: Path) -> Engine:
    model = LoraModel(base_dir, dtype=torch.float32)
    model.end_tokens = frozenset()
    return Engine(model, "base")


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    async with TestClient(TestServer(engine.app(), handler_cancellation=True)) as client:
        yield client


async def post(client: Client, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with client.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}) as response:
        text = await response.text()
        return response.status, json.loads(text) if response.content_type == "application/json" else text


async def events(client: Client, path: str, body: Any) -> list[Any]:
    async with client.post(path, json={**body, "stream": True}) as response:
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def metric(client: Client, name: str) -> dict[str, float]:
    """Series of one name: value by labels as printed."""
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return {
        line.rpartition(" ")[0].removeprefix(name): float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(name + "{")
    }


async def test_a_chat_answer_has_openai_s_form(client: Client) -> None:
    status, body = await post(client, CHAT, HI, X_Request_Id="abc")
    text = body["choices"][0]["message"].pop("content")
    created = body.pop("created")
    assert (status, isinstance(created, int), len(text) > 0) == (200, True, True)
    assert body == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        "model": "base",
        "choices": [{"index": 0, "message": {"role": "assistant"}, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": len("<user>hi<assistant>"), "completion_tokens": 4, "total_tokens": 23},
    }


async def test_a_stream_says_the_same_as_the_whole_answer(client: Client) -> None:
    _, whole = await post(client, CHAT, HI)
    chunks = await events(client, CHAT, {**HI, "stream_options": {"include_usage": True}})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta["content"] for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]][-1] == "length"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}


async def test_completions_take_text_or_tokens_and_default_to_16(client: Client, engine: Engine) -> None:
    ask = {"model": "base", "prompt": "hi", "temperature": 0}
    _, text = await post(client, TEXT, ask)
    _, ids = await post(client, TEXT, {**ask, "prompt": engine.model.tokenizer("hi")["input_ids"]})
    chunks = await events(client, TEXT, ask)
    assert text["object"] == "text_completion"
    assert text["usage"]["completion_tokens"] == 16
    _, listed = await post(client, TEXT, {**ask, "prompt": ["hi"]})
    assert text["choices"] == ids["choices"] == listed["choices"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text["choices"][0]["text"]


@pytest.mark.parametrize(
    ("path", "change", "param", "message"),
    [
        pytest.param(CHAT, {"messages": []}, "messages", "messages: ", id="no message"),
        pytest.param(CHAT, {"messages": [{"content": "x"}]}, "messages.0.role", "Field required", id="no role"),
        pytest.param(CHAT, {"n": 2}, "n", "n: ", id="two answers"),
        pytest.param(CHAT, {"temperature": -1}, "temperature", "temperature: ", id="a negative temperature"),
        pytest.param(CHAT, {"logprobs": True}, "logprobs", "logprobs is not supported", id="log-probabilities"),
        pytest.param(CHAT, {"tools": [{}]}, "tools", "tools is not supported", id="tools"),
        pytest.param(CHAT, {"max_tokens": 500}, "max_tokens", "maximum context length is 256 tokens", id="too much"),
        pytest.param(TEXT, {}, "prompt", "Field required", id="no prompt"),
        pytest.param(TEXT, {"prompt": [1, 9999]}, "prompt", "tokens of the model's vocabulary", id="foreign tokens"),
        pytest.param(TEXT, {"prompt": "x" * 300}, "prompt", "the prompt has 300", id="too long a prompt"),
    ],
)
async def test_a_wrong_request_names_its_field(
    client: Client, path: str, change: dict[str, Any], param: str, message: str
) -> None:
    status, body = await post(client, path, {**HI, **change})
    error = body["error"]
    assert (status, error["type"], error["code"], error["param"]) == (400, "BadRequestError", 400, param)
    assert message in error["message"]


async def test_an_unknown_model_is_never_answered_by_the_base(client: Client) -> None:
    status, body = await post(client, CHAT, {**HI, "model": "support-v9"})
    assert (status, body["error"]) == (
        404,
        {"message": "The model `support-v9` does not exist.", "type": "NotFoundError", "param": "model", "code": 404},
    )


async def test_adapters_come_and_go_by_vllm_s_protocol(client: Client, adapter_dirs: dict[str, Path]) -> None:
    path = str(adapter_dirs["one"])
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    answers = [
        await post(client, load, {"lora_name": "one"}),
        await post(client, load, {"lora_name": "base", "lora_path": path}),
        await post(client, load, {"lora_name": "one", "lora_path": "/nowhere"}),
        await post(client, load, {"lora_name": "one", "lora_path": path}),
        await post(client, load, {"lora_name": "one", "lora_path": path}),
    ]
    assert [status for status, _ in answers] == [400, 400, 404, 200, 400]
    assert answers[3][1] == "Success: LoRA adapter 'one' added successfully."
    async with client.get("/v1/models") as response:
        cards = (await response.json())["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("base", "base", None),
        ("one", path, "base"),
    ]
    (_, base), (_, one) = await post(client, CHAT, HI), await post(client, CHAT, {**HI, "model": "one"})
    assert one["model"] == "one"
    assert one["choices"] != base["choices"]
    assert [(await post(client, unload, {"lora_name": "one"}))[0] for _ in range(2)] == [200, 404]
    assert (await post(client, CHAT, {**HI, "model": "one"}))[0] == 404


async def test_a_load_that_fails_says_why(client: Client, make_adapter: Callable[..., Path]) -> None:
    body = {"lora_name": "big", "lora_path": str(make_adapter(r=32))}
    status, answer = await post(client, "/v1/load_lora_adapter", body)
    assert status == 500
    assert "LoRA rank 32 is greater than max_lora_rank 16" in answer["error"]["message"]


async def test_how_requests_ended_is_counted_under_vllm_s_names(client: Client) -> None:
    await post(client, CHAT, HI)
    labels = '{engine="0",model_name="base"}'
    reasons = {reason: f'{{engine="0",finished_reason="{reason}",model_name="base"}}' for reason in ("length", "abort")}
    assert (await metric(client, "vllm:request_success_total"))[reasons["length"]] == 1
    assert (await metric(client, "vllm:generation_tokens_total"))[labels] == 4
    assert (await metric(client, "vllm:prompt_tokens_total"))[labels] == 19
    assert (await metric(client, "vllm:time_to_first_token_seconds_count"))[labels] == 1
    assert (await metric(client, "vllm:num_requests_running"))[labels] == 0
    assert len(await metric(client, "vllm:lora_requests_info")) == 1
    assert (await metric(client, "vllm:request_success_total"))[reasons["abort"]] == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_row(client: Client, engine: Engine, stream: bool) -> None:
    forward = engine.model.forward

    def slow(*arguments: Any) -> torch.Tensor:
        time.sleep(0.01)
        return forward(*arguments)

    engine.model.forward = slow  # type: ignore[method-assign]
    ask = asyncio.create_task(post(client, CHAT, {**HI, "max_tokens": 200, "stream": stream}))
    while not engine.batcher.running:
        await asyncio.sleep(0.01)
    ask.cancel()
    while engine.batcher.running:
        await asyncio.sleep(0.01)
    series = await metric(client, "vllm:request_success_total")
    assert series['{engine="0",finished_reason="abort",model_name="base"}'] == 1


async def test_many_clients_share_passes(client: Client, engine: Engine) -> None:
    passes = 0
    forward = engine.model.forward

    def counting(*arguments: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return forward(*arguments)

    engine.model.forward = counting  # type: ignore[method-assign]
    answers = await asyncio.gather(*(post(client, CHAT, {**HI, "max_tokens": 40}) for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    assert passes < 8 * 40 / 2


async def test_health_and_version(client: Client) -> None:
    async with client.get("/health") as health, client.get("/version") as version:
        assert health.status == 200
        assert (await version.json())["version"].startswith("tuningfork-")
