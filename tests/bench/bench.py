"""`make bench`: one JSON line a benchmark — name, value, unit, and what it is compared with in the same run.

Numbers are ratios against a peer or a limit, because absolute times say more of the machine than of us. Nothing here passes or fails.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tuningfork.api import FineTuneJobSpec
from tuningfork.api.routes import ROUTES_KEY, AdapterState, LoaderState, RouteTable, RouteTarget
from tuningfork.delivery.evidence import Counts, e_value
from tuningfork.sizing import GIB, catalogue_offers, choose, workload

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 600
BODY = {"model": "support", "prompt": "hello", "max_tokens": 8}
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "dtype": "bfloat16",
}  # fmt: skip


def report(name: str, value: float, unit: str, against: str) -> None:
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "against": against}), flush=True)


def seconds_of(work: Callable[[], object], times: int) -> float:
    """Median of one call."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def bench_estimate() -> None:
    """The whole choice for Llama 3 8B over every known accelerator."""
    job = yaml.safe_load((ROOT / "examples" / "finetunejob.yaml").read_text())
    spec = FineTuneJobSpec.model_validate(job["spec"])
    offers = catalogue_offers(64 * GIB)
    taken = seconds_of(lambda: choose(workload(spec, LLAMA), (), offers), 200)
    report("sizing.estimate", taken / 0.010, "ratio", "limit of 10 ms")


def bench_evidence() -> None:
    """One look at a comparison of two rates."""
    taken = seconds_of(lambda: e_value(Counts(40, 1000), Counts(12, 1000), 0.01), 200)
    report("delivery.e_value", taken / 0.001, "ratio", "limit of 1 ms")


@asynccontextmanager
async def stand_in(adapter: str) -> AsyncIterator[int]:
    """An engine that answers at once, and its loader, on one port: what is left is the router."""
    answer = {
        "id": "cmpl-1",
        "model": adapter,
        "choices": [{"index": 0, "text": "hi"}],
        "usage": {"completion_tokens": 1},
    }
    state = LoaderState(engine_up=True, adapters={adapter: AdapterState(state="Loaded")})

    async def complete(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(answer)

    async def adapters(_: web.Request) -> web.Response:
        return web.json_response(state.dump())

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete), web.get("/adapters", adapters)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def median_latency(session: aiohttp.ClientSession, url: str) -> float:
    taken = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        async with session.post(f"{url}/v1/completions", json=BODY) as reply:
            await reply.read()
            assert reply.status == 200, await reply.text()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def bench_router() -> None:
    """A request through the router against the same request straight to the engine, one at a time."""
    target = RouteTarget(version="support-v1", adapter="support-v1-00000000")
    table = RouteTable(
        generation=1, namespace="ml", rollout="support", model="support", engine_service="unused", stable=target
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ROUTES_KEY).write_text(table.model_dump_json(by_alias=True))
        async with stand_in(target.adapter) as port, aiohttp.ClientSession() as session:
            listen = port + 1 if port < 65535 else port - 1
            router = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "tuningfork-router"), "--namespace", "ml", "--rollout", "support",
                "--config-dir", folder, "--engines", f"127.0.0.1:{port}:{port}", "--host", "127.0.0.1", "--port", str(listen),
                env={"PATH": os.environ["PATH"]}, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                await until_ready(session, f"http://127.0.0.1:{listen}")
                direct = await median_latency(session, f"http://127.0.0.1:{port}")
                routed = await median_latency(session, f"http://127.0.0.1:{listen}")
            finally:
                router.kill()
                await router.wait()
    report(
        "router.added_latency_p50", (routed - direct) * 1000, "ms", f"straight to the engine: {direct * 1000:.2f} ms"
    )


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(200):
        try:
            async with session.get(f"{url}/readyz") as reply:
                if reply.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError("the router is not ready after 20 s")


if __name__ == "__main__":
    bench_estimate()
    bench_evidence()
    asyncio.run(bench_router())
