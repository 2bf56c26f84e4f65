"""Engine, loader and router as they stand in a pod, with a real model, real adapters and OpenAI's own client: from a table to an answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from aiohttp.test_utils import TestServer

from tuningfork.api.artifacts import FileEntry, Manifest
from tuningfork.api.routes import ADAPTERS_KEY, ROUTES_KEY, AdapterEntry, AdapterTable, RouteTable
from tuningfork_serving import tables
from tuningfork_serving.engine.app import Engine
from tuningfork_serving.engine.model import LoraModel
from tuningfork_serving.loader.app import Loader
from tuningfork_serving.loader.store import sha256
from tuningfork_serving.router import backends
from tuningfork_serving.router.app import Router
from tuningfork_serving.router.backends import Address
from tuningfork_serving.tables import Source

WITHIN = 10.0
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 6}


class Pod:
    """The parts, and the ConfigMap's folder."""

    def __init__(self, folder: Path, engine: Engine, router: Router, client: openai.AsyncOpenAI) -> None:
        self.folder, self.engine, self.router, self.client = folder, engine, router, client

    def declare(self, *adapters: AdapterEntry) -> None:
        table = AdapterTable(base_uri="file:///base", adapters=list(adapters))
        (self.folder / ADAPTERS_KEY).write_text(json.dumps(table.dump()))

    def route(self, table: RouteTable) -> None:
        (self.folder / ROUTES_KEY).write_text(json.dumps(table.dump()))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN):
            while not condition():
                await asyncio.sleep(0.02)

    def holds(self, *names: str) -> bool:
        return bool(self.router.backends.pods) and self.router.backends.pods[0].adapters == frozenset(names)


@pytest.fixture
def entries(adapter_dirs: dict[str, Path]) -> dict[str, AdapterEntry]:
    """v1 and v2: the two adapters with manifests, named as the route tables of the builders name them."""
    found = {}
    for version, folder in zip(("v1", "v2"), adapter_dirs.values(), strict=True):
        files = [path for path in folder.iterdir() if path.name != "manifest.json"]
        manifest = Manifest(
            kind="adapter", files={p.name: FileEntry(sha256=sha256(p), size=p.stat().st_size) for p in files}
        )
        (folder / "manifest.json").write_bytes(manifest.canonical())
        found[version] = AdapterEntry(
            name=f"{version}-adapter",
            version=version,
            uri=f"file://{folder}",
            digest=manifest.digest(),
            required=version == "v1",
        )
    return found


@pytest.fixture
async def pod(base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    monkeypatch.setattr(tables, "FILE_SECONDS", 0.05)
    monkeypatch.setattr(backends, "INTERVAL_SECONDS", 0.05)
    (config := tmp_path / "config").mkdir()
    source = Source("ml", "support-serving", config)
    model = LoraModel(base_dir, dtype=torch.float32)
    model.end_tokens = frozenset()
    engine = Engine(model, "base")
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(TestServer(engine.app(), handler_cancellation=True))
        loader = Loader(source, f"http://127.0.0.1:{served.port}", tmp_path / "adapters")
        beside = await stack.enter_async_context(TestServer(loader.app()))
        address = Address("127.0.0.1", served.port or 0, beside.port or 0)
        router = Router(source, "support", engines=[address])
        front = await stack.enter_async_context(TestServer(router.app(), handler_cancellation=True))
        url = f"http://127.0.0.1:{front.port}/v1"
        client = await stack.enter_async_context(openai.AsyncOpenAI(base_url=url, api_key="-", max_retries=0))
        yield Pod(config, engine, router, client)


async def test_from_a_declared_adapter_to_its_answers_and_ratings(
    pod: Pod,
    entries: dict[str, AdapterEntry],
    table: Callable[..., RouteTable],
    lane_target: Callable[..., dict[str, Any]],
) -> None:
    pod.declare(*entries.values())
    pod.route(table())
    await pod.until(lambda: pod.holds("v1-adapter", "v2-adapter") and pod.router.routes is not None)
    stable = await pod.client.chat.completions.create(model="support", user="u", **ASK)
    pod.route(table(generation=2, candidate=lane_target("v2", track="canary", weight=100, salt="s")))
    await pod.until(lambda: pod.router.routes is not None and pod.router.routes.table.generation == 2)
    canary = await pod.client.chat.completions.create(model="support", user="u", **ASK)
    assert (stable.model, canary.model) == ("support", "support")
    assert stable.choices[0].message.content != canary.choices[0].message.content
    assert [card.id async for card in pod.client.models.list()] == ["support"]

    stream = await pod.client.chat.completions.create(model="support", user="u", stream=True, **ASK)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == canary.choices[0].message.content

    answer = await pod.client.post("/feedback", body={"id": chunks[0].id, "rating": "down"}, cast_to=object)
    assert answer == {"id": chunks[0].id, "rating": "down", "counted": True}
    labels = {"namespace": "ml", "rollout": "support", "track": "canary", "slice": "candidate", "model_version": "v2"}
    value = pod.router.metrics.registry.get_sample_value
    assert value("tuningfork_router_feedback_total", {**labels, "rating": "down"}) == 1
    assert value("tuningfork_router_requests_total", {**labels, "outcome": "ok"}) == 2
    assert value("tuningfork_router_tokens_total", {**labels, "direction": "output"}) == 12


async def test_what_is_not_served_is_an_error_in_openai_s_form(
    pod: Pod, entries: dict[str, AdapterEntry], table: Callable[..., RouteTable]
) -> None:
    pod.declare(entries["v1"])
    pod.route(table())
    await pod.until(lambda: pod.holds("v1-adapter"))
    for model in ("v1-adapter", "base", "gpt-4"):
        with pytest.raises(openai.NotFoundError) as caught:
            await pod.client.chat.completions.create(model=model, **ASK)
        assert caught.value.code == "model_not_found"


async def test_no_request_fails_while_adapters_come_and_go(
    pod: Pod, entries: dict[str, AdapterEntry], table: Callable[..., RouteTable]
) -> None:
    pod.declare(entries["v1"])
    pod.route(table())
    await pod.until(lambda: pod.holds("v1-adapter"))
    done = asyncio.Event()
    answers: set[str | None] = set()

    async def client() -> None:
        while not done.is_set():
            said = await pod.client.chat.completions.create(model="support", **ASK)
            answers.add(said.choices[0].message.content)

    async with asyncio.TaskGroup() as clients:
        for _ in range(4):
            clients.create_task(client())
        for wanted in (["v1", "v2"], ["v1"], ["v1", "v2"]):
            pod.declare(*(entries[version] for version in wanted))
            await pod.until(lambda wanted=wanted: pod.holds(*(f"{version}-adapter" for version in wanted)))  # type: ignore[misc]
        done.set()
    assert len(answers) == 1


async def test_an_engine_that_lost_its_adapters_gets_them_back(
    pod: Pod, entries: dict[str, AdapterEntry], table: Callable[..., RouteTable]
) -> None:
    pod.declare(entries["v1"])
    pod.route(table())
    await pod.until(lambda: pod.holds("v1-adapter"))
    before = await pod.client.chat.completions.create(model="support", **ASK)
    pod.engine.adapters.unload("v1-adapter")
    await pod.until(lambda: "v1-adapter" in pod.engine.adapters.loaded)
    after = await pod.client.with_options(max_retries=5).chat.completions.create(model="support", **ASK)
    assert after.choices[0].message.content == before.choices[0].message.content
