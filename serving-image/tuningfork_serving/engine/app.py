"""The engine's HTTP side and its command line (vllm serve's flag names)."""

import argparse
import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformers
from aiohttp import web
from prometheus_client import disable_created_metrics, generate_latest

from tuningfork.api.routes import ENGINE_PORT
from tuningfork_serving.engine.adapters import Adapters
from tuningfork_serving.engine.batcher import Batcher, Delta, Generation
from tuningfork_serving.engine.metrics import EngineMetrics
from tuningfork_serving.engine.model import BASE, DTYPES, LoraModel
from tuningfork_serving.engine.protocol import (
    DONE,
    Answer,
    ChatRequest,
    CompletionRequest,
    Usage,
    event,
    parse_request,
)
from tuningfork_serving.engine.sampling import Sampling
from tuningfork_serving.engine.text import TextStream
from tuningfork_serving.openai import ApiError, bad_request, error_body
from tuningfork_serving.server import configure_logging, serve

BODY_LIMIT = 16 * 1024**2


class Engine:
    """One model behind OpenAI's API."""

    def __init__(self, model: LoraModel, name: str, *, max_running: int = 16, max_adapters: int = 4, lora: bool = True):
        self.model, self.name, self.lora = model, name, lora
        self.batcher = Batcher(model, max_running=max_running, max_adapters=max_adapters, base=BASE)
        self.adapters = Adapters(name, model, self.batcher)
        self.metrics = EngineMetrics(name)
        named = self.adapters.name_of
        self.metrics.watch(
            lambda: [named(g.handle) for g in self.batcher.running],
            lambda: [named(g.handle) for g in self.batcher.waiting],
            max_adapters,
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_errors])
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_get("/v1/models", self.list_models)
        if self.lora:
            app.router.add_post("/v1/load_lora_adapter", self.load_adapter)
            app.router.add_post("/v1/unload_lora_adapter", self.unload_adapter)
        app.router.add_get("/health", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/metrics", self.scrape)
        app.cleanup_ctx.append(self._inference)
        return app

    async def _inference(self, _: web.Application) -> AsyncIterator[None]:
        self.batcher.start()
        yield
        self.batcher.stop()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        chat = request.path.endswith("/chat/completions")
        parsed = parse_request(await request.read(), chat=chat)
        prefix = "chatcmpl" if chat else "cmpl"
        identity = f"{prefix}-{request.headers.get('X-Request-Id') or uuid.uuid4().hex}"
        answer = Answer(identity, int(time.time()), parsed.model or self.name, chat)
        prompt = self._prompt(parsed)
        deltas: asyncio.Queue[Delta] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        # Between looking up the handle and submitting nothing is awaited: an unload cannot come in between.
        generation = Generation(
            prompt=prompt,
            handle=self.adapters.handle(parsed.model),
            max_tokens=self._max_tokens(parsed, len(prompt)),
            sampling=Sampling(parsed.temperature, parsed.top_p, max(0, parsed.top_k), parsed.seed),
            text=TextStream(self._decode, parsed.stops),
            deliver=lambda delta: _hand_over(loop, deltas, delta),
        )
        self.batcher.submit(generation)
        source = self._follow(generation, deltas)
        async with contextlib.aclosing(source):
            if parsed.stream:
                return await self._stream(request, parsed, answer, generation, source)
            return await self._whole(answer, generation, source)

    async def _whole(self, answer: Answer, generation: Generation, source: AsyncIterator[Delta]) -> web.StreamResponse:
        text, reason = "", ""
        async for delta in source:
            text += delta.text
            reason = delta.finish_reason or reason
        if reason == "error":
            raise ApiError(500, "the forward pass failed; the engine's log has the cause", "InternalServerError")
        usage = Usage(len(generation.prompt), generation.generated)
        return web.json_response(answer.whole(text, reason, usage))

    async def _stream(
        self,
        request: web.Request,
        parsed: ChatRequest | CompletionRequest,
        answer: Answer,
        generation: Generation,
        source: AsyncIterator[Delta],
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        first = True
        async for delta in source:
            if delta.finish_reason == "error":
                await response.write(event(error_body("the forward pass failed", "InternalServerError", code=500)))
            elif delta.text or delta.finish_reason or first:
                await response.write(event(answer.chunk(delta.text, delta.finish_reason, first=first)))
            first = False
        if parsed.include_usage:
            await response.write(event(answer.closing(Usage(len(generation.prompt), generation.generated))))
        await response.write(DONE)
        return response

    async def _follow(self, generation: Generation, deltas: asyncio.Queue[Delta]) -> AsyncGenerator[Delta, None]:
        """The deltas until the last; counts them, and aborts the generation when the client leaves."""
        metrics, previous, reason = self.metrics, generation.arrived, "abort"
        try:
            while True:
                delta = await deltas.get()
                now = time.perf_counter()
                if delta.tokens:
                    histogram = metrics.first_token if previous == generation.arrived else metrics.inter_token
                    histogram.observe(now - previous)
                    metrics.generation_tokens.inc(delta.tokens)
                    previous = now
                reason = delta.finish_reason or "abort"
                yield delta
                if delta.finish_reason:
                    return
        finally:
            generation.aborted = True
            metrics.finished(reason)
            metrics.prompt_tokens.inc(generation.done)
            metrics.latency.observe(time.perf_counter() - generation.arrived)
            if generation.started:
                metrics.queue.observe(generation.started - generation.arrived)

    def _prompt(self, parsed: ChatRequest | CompletionRequest) -> list[int]:
        tokenizer = self.model.tokenizer
        if isinstance(parsed, ChatRequest):
            messages = [message.flat() for message in parsed.messages]
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:
                raise bad_request(f"the model's chat template refuses the messages: {error}", "messages") from error
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids
        prompt = parsed.prompt
        text = prompt if isinstance(prompt, str) else prompt[0] if prompt and isinstance(prompt[0], str) else None
        ids = [token for token in prompt if isinstance(token, int)] if text is None else tokenizer(text)["input_ids"]
        if not ids or not all(0 <= token < self.model.config.vocab_size for token in ids):
            raise bad_request("prompt must be a text or tokens of the model's vocabulary, and not empty", "prompt")
        return ids

    def _max_tokens(self, parsed: ChatRequest | CompletionRequest, prompt: int) -> int:
        room = self.model.max_length - prompt
        wanted = parsed.limit or room
        if room < 1 or wanted > room:
            raise bad_request(
                f"This model's maximum context length is {self.model.max_length} tokens; the prompt has {prompt} and "
                f"{wanted} more were asked for. Shorten the prompt or lower max_tokens.",
                "max_tokens" if room >= 1 else "prompt",
            )
        return wanted

    def _decode(self, ids: list[int]) -> str:
        text: str = self.model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    async def list_models(self, _: web.Request) -> web.Response:
        def card(name: str, root: str, parent: str | None) -> dict[str, Any]:
            owner = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "tuningfork"}
            return {**owner, "root": root, "parent": parent, "max_model_len": self.model.max_length}

        adapters = [card(a.name, a.path, self.name) for a in self.adapters.loaded.values()]
        return web.json_response({"object": "list", "data": [card(self.name, self.name, None), *adapters]})

    async def load_adapter(self, request: web.Request) -> web.Response:
        name, path = await _fields(request, "lora_name", "lora_path")
        await self.adapters.load(name, path)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: web.Request) -> web.Response:
        (name,) = await _fields(request, "lora_name")
        self.adapters.unload(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.batcher.is_alive() else 503)

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": f"tuningfork-{version('tuningfork')}"})

    async def scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain", charset="utf-8")


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ApiError as error:
        return error.response()
    return response


def _hand_over(loop: asyncio.AbstractEventLoop, deltas: asyncio.Queue[Delta], delta: Delta) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(deltas.put_nowait, delta)


async def _fields(request: web.Request, *names: str) -> list[str]:
    try:
        body = await request.json()
        return [str(body.get(name) or "") for name in names]
    except (ValueError, AttributeError) as error:
        raise bad_request(f"the body must be a JSON object with {' and '.join(names)}") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tuningfork-engine", description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="folder of a Hugging Face checkpoint (safetensors)")
    parser.add_argument("--served-model-name", help="the base model's name; default: the folder as given")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod's server
    parser.add_argument("--port", type=int, default=ENGINE_PORT)
    parser.add_argument("--enable-lora", action="store_true", help="without it adapters are refused")
    parser.add_argument("--max-loras", type=int, default=4, help="different adapters in one batch")
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--max-model-len", type=int, help="default: the model's own")
    parser.add_argument("--max-num-seqs", type=int, default=16, help="requests in one batch")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="bfloat16", help="bfloat16 is twice as fast where AVX-512 has it"
    )
    return parser.parse_args()


def run() -> None:
    """Loads the model, warms it up, and serves."""
    arguments = _arguments()
    configure_logging()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model = LoraModel(arguments.model, dtype=DTYPES[arguments.dtype], max_rank=arguments.max_lora_rank)
    model.max_length = min(arguments.max_model_len or model.max_length, model.max_length)
    model.warm_up()
    name = arguments.served_model_name or str(arguments.model)
    limits = {"max_running": arguments.max_num_seqs, "max_adapters": arguments.max_loras}
    engine = Engine(model, name, **limits, lora=arguments.enable_lora)
    asyncio.run(serve(engine.app(), arguments.host, arguments.port))
